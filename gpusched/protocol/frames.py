"""Frames: a message as one line of JSON, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from gpusched.protocol.replies import Reply
from gpusched.protocol.requests import Hello, Request

PROTOCOL = 2
#: a longer request ends the connection
MAX_REQUEST_BYTES = 8 * 1024 * 1024
#: a longer reply means that the other side is not a daemon
MAX_REPLY_BYTES = 64 * 1024 * 1024


class BadFrame(Exception):
    """A line that is not a message of this protocol; its text is the reason."""


_encoder = msgspec.json.Encoder()


def encode(message: Hello | Request | Reply) -> bytes:
    """The frame of a message: one line of JSON, with its newline."""
    return _encoder.encode(message) + b"\n"


@functools.cache
def _json(messages: Any) -> Callable[[bytes], Any]:
    """The decoder of a type, made when it is first used: no side needs all, and that of replies is slow to make."""
    return msgspec.json.Decoder(messages).decode


def _decoder(messages: Any) -> Callable[[bytes], Any]:
    def decode_frame(line: bytes) -> Any:
        try:
            return _json(messages)(line)
        except RecursionError:
            raise BadFrame("it is nested too deeply") from None
        except ValueError as error:  # the base of msgspec's errors and of UnicodeDecodeError
            raise BadFrame(str(error)) from error

    return decode_frame


#: Each decodes one line. Raises BadFrame.
decode_hello: Callable[[bytes], Hello] = _decoder(Hello)
decode_request: Callable[[bytes], Request] = _decoder(Request)
decode_reply: Callable[[bytes], Reply] = _decoder(Reply)
