"""Huffman's code of HPACK (RFC 7541 section 5.2 and appendix B). Runs compiled (with huffman.pxd) or as it stands."""

from __future__ import annotations

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506060606"
    "06060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606060507070606"
    "060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615141616"
    "1717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a"
    "1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
"""Bits of the code of each octet, and of the end of a string (EOS). The code is canonical: this says all of it."""
_EOS = 256
_FAILED, _EMITS = 2, 1


def _codes() -> list[int]:
    codes = [0] * 257
    code = before = 0
    for symbol in sorted(range(257), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - before
        before = _LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return codes


def _machine(codes: list[int]) -> tuple[bytes, bytes, bytes, bytes]:
    """By state * 16 + four bits: next state, symbol, flags; and by state whether a string may end in it.

    A state is a node of the code's tree; the root is 0. Codes have five bits at least: four bits end no more than one.
    """
    children: list[list[int]] = [[0, 0]]  # positive: a node; negative: -1 - symbol; 0: not there yet
    for symbol, code in enumerate(codes):
        node = 0
        for bit in range(_LENGTHS[symbol] - 1, 0, -1):
            side = (code >> bit) & 1
            if not children[node][side]:
                children.append([0, 0])
                children[node][side] = len(children) - 1
            node = children[node][side]
        children[node][code & 1] = -1 - symbol
    ends = bytearray(len(children))
    node = 0
    for _ in range(8):  # padding: up to seven ones, the beginning of EOS
        ends[node] = 1
        node = children[node][1]
    following, symbols, flags = bytearray(), bytearray(), bytearray()
    for state in range(len(children)):
        for nibble in range(16):
            node, symbol, flag = state, 0, 0
            for bit in (8, 4, 2, 1):
                node = children[node][1 if nibble & bit else 0]
                if node < 0:
                    if -1 - node == _EOS:
                        flag = _FAILED
                        node = 0
                        break
                    symbol, flag, node = -1 - node, flag | _EMITS, 0
            following.append(node)
            symbols.append(symbol)
            flags.append(flag)
    return bytes(following), bytes(symbols), bytes(flags), bytes(ends)


_CODES = _codes()
_FOLLOWING, _SYMBOLS, _FLAGS, _ENDS = _machine(_CODES)
_CODE_OCTETS = b"".join(code.to_bytes(4, "little") for code in _CODES)
# Plain names for what the .pxd declares as C pointers; the bytes above keep them alive.
_lengths = _LENGTHS
_following = _FOLLOWING
_symbols = _SYMBOLS
_flags = _FLAGS
_ends = _ENDS
_code_octets = _CODE_OCTETS


def huffman_decode(block: bytes, at: int, stop: int) -> bytes | None:
    """The text of block[at:stop]; None: it is no such code, or its padding is not at most seven ones."""
    octets = block  # compiled: a pointer
    out = bytearray((stop - at) * 8 // 5 + 1)
    text = out  # compiled: a pointer
    made = 0
    state = 0
    while at < stop:
        octet = octets[at]
        at += 1
        for half in range(2):
            step = state * 16 + (octet & 15 if half else octet >> 4)
            flag = _flags[step]
            if flag:
                if flag & 2:
                    return None
                text[made] = _symbols[step]
                made += 1
            state = _following[step]
    if not _ends[state]:
        return None
    return bytes(out[:made])


def huffman_encode(text: bytes) -> bytes:
    """`text` in Huffman's code, padded with ones."""
    octets = text  # compiled: a pointer
    size = len(text)
    bits = 0
    for k in range(size):
        bits += _lengths[octets[k]]
    out = bytearray((bits + 7) // 8)
    coded = out  # compiled: a pointer
    acc = 0
    held = 0
    made = 0
    for k in range(size):
        symbol = octets[k]
        at = symbol * 4
        code = (
            _code_octets[at] | (_code_octets[at + 1] << 8) | (_code_octets[at + 2] << 16) | (_code_octets[at + 3] << 24)
        )
        acc = ((acc << _lengths[symbol]) | code) & 0xFFFFFFFFFF
        held += _lengths[symbol]
        while held >= 8:
            held -= 8
            coded[made] = (acc >> held) & 255
            made += 1
    if held:
        coded[made] = ((acc << (8 - held)) | (255 >> held)) & 255
    return bytes(out)
