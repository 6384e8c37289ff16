"""Questions and answers: options, prompts, subtitles, evidence."""
