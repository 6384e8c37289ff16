"""MarathonWorld's truth as captioner, writer and verifier: synthesis without any model, on videos made here.

    seeing       frames -> which script, and which of its seconds
    describing   seconds that were seen -> a caption in six aspects
    retelling    captions -> what they tell, as a script
    model        answers requests from these

Nothing is taken from a script but by way of frames that were sent, and nothing in later stages but from texts that were
sent: wrong frames, times or captions give wrong answers, as they would with a real model.
"""
