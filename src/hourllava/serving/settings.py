"""What a server allows, and its limits: one line each, with its unit. `docs/serving.md` has them as a table."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from hourllava.video.limits import VideoLimits

MIB = 2**20


class ServeSettings(BaseModel):
    """Settings of a server. All limits hold for every client; those with "a client" count by key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Who may come, and to what.
    keys: dict[str, SecretStr] = Field({}, description="keys by name; none: everybody may use the server")
    allowed_hosts: tuple[str, ...] = Field((), description="names in Host beside localhost and IP addresses")
    cors_origins: tuple[str, ...] = Field((), description="web origins, beside its own, whose pages may use it")
    media_root: Path | None = Field(None, description="folder whose videos clients may name")
    allow_url_hosts: tuple[str, ...] = Field((), description="hosts that videos may be fetched from; * for all")
    public_url: str = Field("", description="address of the server in its answers, if a proxy hides it")

    # What comes in.
    max_upload_bytes: int = Field(8192 * MIB, ge=1, description="of an uploaded or fetched file")
    max_json_bytes: int = Field(32 * MIB, ge=1024, description="of any other request")
    max_client_bytes: int = Field(100 * 1024 * MIB, ge=1, description="of all files of a client")
    max_client_files: int = Field(1000, ge=1, description="files of a client")
    max_client_memories: int = Field(1000, ge=1, description="memories of a client")
    min_free_bytes: int = Field(256 * MIB, ge=0, description="that uploads leave free on the disk")
    max_uploads: int = Field(16, ge=1, description="uploads and fetches at once")
    fetch_seconds: float = Field(1800, gt=0, description="that fetching a video may take")

    # Videos.
    max_video_seconds: float = Field(6 * 3600, gt=0, description="of a video, or of the part of it that is watched")
    max_frames: int = Field(40_000, ge=1, description="of a memory")
    max_pixels: int = Field(8192 * 4320, ge=1, description="of a picture of a video")
    max_video_streams: int = Field(64, ge=1, description="pictures, sound and subtitles in a video's file")
    max_decoder_bytes: int = Field(4096 * MIB, ge=512 * MIB, description="address space of each decoding process")
    max_decoder_seconds: int = Field(2 * 3600, ge=10, description="of processor time of each decoding process")
    max_fps: float = Field(30, gt=0, description="frames sampled a second")
    max_watches_waiting: int = Field(64, ge=1, description="videos that wait to be watched")

    # Questions.
    max_question_characters: int = Field(32_768, ge=1, description="of a question")
    max_turns: int = Field(100, ge=1, description="questions and answers before a question")
    max_options: int = Field(26, ge=2, le=26, description="options of a multiple choice")
    max_subtitle_bytes: int = Field(4 * MIB, ge=1, description="of a subtitle file or text")
    max_new_tokens: int = Field(4096, ge=1, description="of an answer")
    max_client_questions: int = Field(64, ge=1, description="questions of a client at once")
    max_responses: int = Field(1000, ge=1, description="answers of /v1/responses that are kept, in memory")

    # Time.
    max_streams: int = Field(1000, ge=1, description="streams of events at once")
    ping_seconds: float = Field(15, gt=0, description="of silence in a stream before a ping")
    head_seconds: float = Field(20, gt=0, description="that the head of a request may take")
    idle_seconds: float = Field(60, gt=0, description="without a byte of a request's body")
    send_seconds: float = Field(600, gt=0, description="that a client may take to read what was sent")
    drain_seconds: float = Field(30, ge=0, description="for answers that are being written when the server ends")
    token_seconds: float = Field(12 * 3600, gt=0, description="that the address of a video for the player is valid")

    @property
    def video_limits(self) -> VideoLimits:
        """What a video may have, and what decoding it may take."""
        return VideoLimits(
            max_seconds=self.max_video_seconds,
            max_frames=self.max_frames,
            max_pixels=self.max_pixels,
            max_streams=self.max_video_streams,
            memory_bytes=self.max_decoder_bytes,
            cpu_seconds=self.max_decoder_seconds,
        )

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in keys.items():
            if not re.fullmatch(r"[\w.-]{1,64}", name):
                raise ValueError(f"{name[:80]!r} is no name of a key; use letters, digits, dots, dashes, at most 64")
            if not re.fullmatch(r"[\x21-\x7e]{16,512}", key.get_secret_value()):
                raise ValueError(f"the key of {name!r} must have 16 to 512 letters, none of them a space")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[\w.:\[\]-]+", origin):
                raise ValueError(f"{origin!r} is no web origin; write it like https://example.org, without a path")
        return origins

    @field_validator("public_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s?#]+", url):
            raise ValueError(f"{url!r} is no address; write it like https://example.org/videos")
        return url.rstrip("/")
