"""Tokens when the provider's count is missing, or is no count: `estimate` and `clean`.

The estimate reads bytes, with no tokenizer and without decoding the JSON: it must be quick on a 20 MB body, and no
vocabulary fits all providers. The weights below were fitted with OpenAI's o200k_base vocabulary (npm gpt-tokenizer) on 1.6 MB
of text: English prose and Markdown, Python, JavaScript, JSON, tables of numbers, and the message catalogues of Debian's tools
in ten languages. Against the same vocabulary whole requests are off by -11 % to +28 %: Chinese -10 %, Japanese -5 %, Russian
+28 %, English +20 % in prose and -3 % in Markdown, code +4 % to +15 %, JSON -11 %; tables of numbers by -25 %. Vocabularies
differ among themselves by as much: cl100k_base needs 18 % more tokens than o200k_base for that Chinese, 43 % for that Russian.
"""

from __future__ import annotations

import re
from typing import NamedTuple, get_type_hints

import msgspec

from aigw.exchange import Usage

# Hundredths of a token for each character, by the length of its UTF-8.
ASCII = 25  # four bytes a token: 4.7 in English prose, 3.8 in Markdown, 4.9 in Python, 3.2 in JSON
TWO_BYTES = 40  # accented Latin 0.45, Cyrillic 0.30 to 0.38, Greek 0.42
THREE_BYTES = 80  # Chinese 0.88, Japanese 0.82, Korean 0.82 in technical text; less in prose
FOUR_BYTES = 200  # emoji
DIGIT = 40  # vocabularies cut numbers after three digits
INDENT = 20  # four spaces: a longer run of them is one token

IMAGE = 1000  # tokens. 1024 x 1024: OpenAI 765 (high detail), Anthropic about 1,400 (w*h/750), Gemini 258 a tile
IMAGE_MADE = 1056  # tokens of a generated image: gpt-image-1, 1024 x 1024, medium quality
AUDIO = 2000  # base64 bytes a token: 10 tokens a second (OpenAI) of MP3 at 128 kbit/s
DOCUMENT = 40  # base64 bytes a token: Anthropic says 1,500 to 3,000 tokens a page; a page taken to be 75 KB
OPAQUE = 5  # base64 bytes a token: reasoning that travels encrypted, four bytes a token and base64's 4/3
# AUDIO, DOCUMENT and OPAQUE are guesses from the providers' documentation, not measured.

MARKS = {b"image": "image", b"audio": "audio", b"pdf": "document", b"signature": "signature", b"Signature": "signature"}
"""Words near encoded data that say what it is. A signature (of a thinking block) costs nothing by itself."""

SAMPLE = 128 * 1024  # bytes of text that are looked at; of more, as many taken evenly from all of it
PIECES = 64
ANSWER_SAMPLE = 64 * 1024
WINDOW = 96  # bytes that must look encoded
LEAST = 512  # bytes of encoded data that are worth telling from text
ENCODED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\\"  # \: some escape / in JSON
DIGITS = b"0123456789"
MAX = 2**53  # the largest count a JSON number carries exactly; no model answers so much
PART_MAX = MAX // 8  # of a part, so that a whole to which its parts are added is still possible

COUNTS = {
    name: MAX if name in {"input", "output"} else PART_MAX for name, type_ in get_type_hints(Usage).items() if type_ is int
}

NUMBERS = len(COUNTS)  # they are the first fields of a Usage

SILENT = frozenset(
    {"embeddings", "embed_gemini", "embed_gemini_batch", "moderations", "rerank", "speech", "count_tokens", "count_gemini"}
)
"""Operations whose answer holds no tokens that are billed."""

SAID = re.compile(
    rb'"(content|text|refusal|reasoning_content|reasoning|thinking|arguments|partial_json|delta)"\s*:\s*"'
    rb'([^"\\]*(?:\\.[^"\\]*)*)'
)
TOKEN_IDS = re.compile(rb'"input"\s*:\s*\[\s*(?:\[\s*)?\d')
ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{4}")
COUNT = re.compile(rb'"n"\s*:\s*(\d{1,2})\b')

LEAD_TWO, LEAD_THREE, LEAD_FOUR = bytes(range(0xC0, 0xE0)), bytes(range(0xE0, 0xF0)), bytes(range(0xF0, 0xF8))
HIGH = bytes(range(0x80, 0x100))


def estimate(operation: str, body: bytes, answer: bytes = b"", answer_bytes: int = 0) -> Usage:
    """A usage for an exchange whose provider reported none, marked `estimated`.

    *body* is the request. *answer* is what is at hand of the answer (a JSON body, events of a stream; from its beginning,
    some KB are enough), and *answer_bytes* its length when that is more than `len(answer)`. Of chat-like operations the text in
    the answer is counted, of images a constant each. Tool calls that Anthropic answers as objects, outside streams, are not.
    """
    if operation in {"count_tokens", "count_gemini"}:  # free of charge everywhere
        return Usage(estimated=True)
    usage = Usage(estimated=True)
    if operation == "embeddings" and (at := body.find(b'"input"')) >= 0 and TOKEN_IDS.match(body, at):
        usage.input = body.count(b",", at) + 1  # already tokens: a list of numbers
        return usage
    usage.input = text = 0
    segments: list[tuple[int, int]] = []
    for blob in blobs(body):
        segments.append((text, blob.start))
        text = blob.end
        size = blob.end - blob.start
        if blob.kind == "image":
            usage.image_input += IMAGE
        elif blob.kind == "audio":
            usage.audio_input += size // AUDIO + 1
        elif blob.kind == "document":
            usage.input += size // DOCUMENT + 1
        elif blob.kind != "signature":
            usage.input += size // OPAQUE + 1
    segments.append((text, len(body)))
    usage.input += usage.image_input + usage.audio_input + segment_tokens(body, segments)
    if not answer or operation in SILENT:
        return usage
    if operation == "images":
        asked = COUNT.match(body, at) if (at := body.find(b'"n"')) >= 0 else None
        usage.output = usage.image_output = IMAGE_MADE * (max(1, int(asked[1])) if asked else 1)
    else:
        usage.output = answer_tokens(answer, max(answer_bytes, len(answer)))
    return usage


def estimate_form(operation: str, size: int, answer: bytes = b"", answer_bytes: int = 0) -> Usage:
    """The same for a form with files of *size* bytes in all, which nobody kept: speech by its length, images by a constant."""
    usage = Usage(estimated=True)
    if operation in {"transcriptions", "translations"}:
        usage.input = usage.audio_input = size * 4 // (3 * AUDIO) + 1
        text = b"" if answer[:1] == b"{" else answer[:ANSWER_SAMPLE]
        usage.output = (
            text_tokens(text) * max(answer_bytes, len(text)) // len(text)
            if text
            else answer_tokens(answer or b" ", len(answer) or 1)
        )
    elif operation in {"image_edits", "image_variations"}:
        usage.input = usage.image_input = IMAGE
        usage.output = usage.image_output = IMAGE_MADE
    return usage


def clean(usage: Usage) -> Usage:
    """The usage as given, when it can be true; else a corrected copy, marked `estimated`.

    Negative and absurd counts (over 2**53; parts over 2**50) become 0. A whole smaller than its parts was reported without
    them (as Anthropic does with cache reads, and some hosts with reasoning): they are added to it.
    """
    counts = msgspec.structs.astuple(usage)[:NUMBERS]
    if not 0 <= min(counts) <= max(counts) < PART_MAX:
        wrong = dict.fromkeys((name for name, most in COUNTS.items() if not 0 <= getattr(usage, name) <= most), 0)
        if wrong:
            return clean(msgspec.structs.replace(usage, estimated=True, **wrong))
    cost = usage.reported_cost
    if cost is None and sum(counts) == counts[0] + counts[4]:  # no parts, nothing to contradict
        return usage
    if cost is not None and not 0 <= cost <= MAX:
        usage = msgspec.structs.replace(usage, reported_cost=None)
    whole, cached, short, long, output, reasoning, heard, spoken, seen, drawn = counts
    cache, media, made = cached + short + long, heard + seen, reasoning + spoken + drawn
    if cache > whole or media > whole:
        usage = msgspec.structs.replace(usage, estimated=True, input=whole + max(cache, media))
    if made > output:
        usage = msgspec.structs.replace(usage, estimated=True, output=output + made)
    return usage


class Blob(NamedTuple):
    """Encoded data inside a body, from *start* to *end*: an image, audio, a document, a signature, or "" (not said)."""

    start: int
    end: int
    kind: str


def blobs(body: bytes) -> list[Blob]:
    """Long base64 runs. Found by looking at 96 bytes every 1,024 (every 4,900 of 20 MB): runs shorter than that count as
    text, and an edge inside a longer string is off by as much."""
    found: list[Blob] = []
    size, position, last = len(body), 0, 0
    stride = max(1024, size // 4096)
    while position < size - WINDOW:
        if not encoded(body[position : position + WINDOW]):
            position += stride
            continue
        close = body.find(b'"', position)
        close = size if close < 0 else close
        if close - position < LEAST:
            position += stride
            continue
        end = position + stride
        while end < close and not body[end : min(end + WINDOW, close)].translate(None, ENCODED):
            end += stride
        end = min(end, close)
        start = max(last, body.rfind(b'"', max(last, position - stride), position) + 1) or position
        found.append(Blob(start, end, kind(body, start, end)))
        position = last = end
    return found


def encoded(window: bytes) -> bool:
    """Whether these bytes look like base64: its alphabet alone, with digits and letters of both cases (96 random ones have
    them all but once in ten million). Repeated letters, hex and \\uXXXX are text."""
    if window.translate(None, ENCODED) or b"\\u" in window:
        return False
    return window.lower() != window != window.upper() and len(window.translate(None, DIGITS)) < len(window)


def kind(body: bytes, start: int, end: int) -> str:
    before = body[max(0, start - 160) : start + 32]
    nearest = max(MARKS, key=before.rfind)
    if nearest in before:
        return MARKS[nearest]
    after = body[end : end + 80]
    return next((MARKS[mark] for mark in MARKS if mark in after), "")


def segment_tokens(body: bytes, segments: list[tuple[int, int]]) -> int:
    total = sum(end - start for start, end in segments)
    if total <= SAMPLE:
        return text_tokens(b"".join([body[start:end] for start, end in segments]))
    pieces, passed, due, step = [], 0, 0, total // PIECES
    for start, end in segments:
        while due < passed + end - start:
            at = start + due - passed
            pieces.append(body[at : min(at + SAMPLE // PIECES, end)])
            due += step
        passed += end - start
    sample = b"".join(pieces)
    return text_tokens(sample) * total // len(sample)


def answer_tokens(answer: bytes, size: int) -> int:
    sample = answer[:ANSWER_SAMPLE]
    said = SAID.findall(sample)
    deltas = [text for key, text in said if key == b"delta"]  # the Responses API repeats the whole text after its deltas
    text = b"".join(deltas or [text for _, text in said])
    return text_tokens(text) * size // len(sample)


def text_tokens(text: bytes) -> int:
    """Tokens of UTF-8 text, JSON-escaped or not, rounded up."""
    hundredths = 0
    if b"\\u" in text:
        short = text.count(b"\\u0")  # up to U+0FFF: Latin, Greek, Cyrillic ...
        text, escaped = ESCAPE.subn(b"", text)
        hundredths = short * TWO_BYTES + (escaped - short) * THREE_BYTES
    hundredths += (len(text) - len(text.translate(None, DIGITS))) * (DIGIT - ASCII)
    hundredths -= text.count(b"    ") * (4 * ASCII - INDENT)
    if text.isascii():
        hundredths += len(text) * ASCII
    else:
        hundredths += (
            len(text.translate(None, HIGH)) * ASCII
            + (len(text) - len(text.translate(None, LEAD_TWO))) * TWO_BYTES
            + (len(text) - len(text.translate(None, LEAD_THREE))) * THREE_BYTES
            + (len(text) - len(text.translate(None, LEAD_FOUR))) * FOUR_BYTES
        )
    return max(0, -(-hundredths // 100))
