"""Calls of tools by an agent, which say what they should be."""

TOOLS = {
    *("list_videos", "watch_video", "ask_video", "choose_answer", "find_moments", "list_memories"),
    *("describe_video", "get_frames"),
}

CUES = "1\n00:00:01,000 --> 00:00:02,000\nLook at the lamp.\n"


async def called(client, tool, **arguments):
    """The data that a tool gives."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refused(client, tool, **arguments):
    """The message of a tool's error, which an unforeseen one lacks."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    prefix, colon, message = result.content[0].text.partition(": ")
    assert (prefix, colon) == (f"Error executing tool {tool}", ": ")
    return message
