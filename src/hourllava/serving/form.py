"""Reads a form with a file piece by piece, so that the file goes straight to its place."""

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from hourllava.serving.errors import invalid, unsupported

_MAX_FIELD_BYTES = 4096


def boundary_of(content_type: str) -> bytes:
    """What separates the parts of a form.

    Raises:
        ApiError: the body is no form.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise invalid("send multipart/form-data with the fields file and purpose", "file")
    return options[b"boundary"]


class Form:
    """The fields `file` and `purpose`, in any order.

    Args:
        boundary: from `boundary_of`.

    Attributes:
        fields: that are no file.
    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self._pieces: list[tuple[str, bytes]] = []
        self._name, self._filename = "", ""
        self._num_files = 0
        self._header, self._value, self._field = b"", b"", b""
        self._is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Pieces of the file in these bytes, with its name.

        Raises:
            ApiError: this is no such form.
        """
        self._pieces = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise invalid("the form cannot be read", "file") from error
        return self._pieces

    def check_end(self) -> None:
        """Check that the form came to its end.

        Raises:
            ApiError: it did not.
        """
        if not self._is_whole:
            raise invalid("the form ends too early", "file")

    def _on_part_begin(self) -> None:
        self._name, self._filename, self._field, self._header, self._value = "", "", b"", b"", b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._header) + len(self._value) > _MAX_FIELD_BYTES:
            raise invalid("a header of the form is too long")

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode(errors="replace")
            self._filename = options.get(b"filename", b"").decode(errors="replace")
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        if self._name == "file":
            self._num_files += 1
            self._pieces.append((self._filename, b""))
            if self._num_files > 1:
                raise invalid("send one file at a time", "file")
        elif self._name != "purpose":
            raise unsupported(self._name[:64] or "a field without a name")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._pieces.append((self._filename, data[start:end]))
            return
        self._field += data[start:end]
        if len(self._field) > _MAX_FIELD_BYTES:
            raise invalid("a field of the form is too long", self._name)

    def _on_part_end(self) -> None:
        if self._name != "file":
            self.fields[self._name] = self._field.decode(errors="replace")

    def _on_end(self) -> None:
        self._is_whole = True
