"""The keyed hash is HMAC, whatever the key and the text are."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from digest.keyed import mac


@given(key=st.binary(max_size=200), text=st.binary(max_size=300))
def test_it_is_what_the_standard_library_makes(key: bytes, text: bytes) -> None:
    assert mac(key, text) == mac(key, text) == hmac.digest(key, text, "sha256")
