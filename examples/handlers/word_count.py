"""Counts the words of text files: `PYTHONPATH=examples/handlers HANDLERS=word_count inbox run`."""

from inbox import File, ParseError, handler


@handler("text", "*.csv")
def count_words(file: File) -> dict[str, int]:
    try:
        text = file.path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ParseError("not UTF-8", subject=file.member_path, hint="save the file as UTF-8") from error
    return {"words": len(text.split()), "lines": text.count("\n"), "attempt": file.attempt}
