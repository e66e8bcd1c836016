"""Invite codes survive a paste, and bad ones are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import InviteExpired, InviteInvalid
from superbloom.domain.invite import PREFIX, Invite, decode_invite, encode_invite

ADDRESSES = (
    "/ip4/192.168.1.20/tcp/31330/p2p/QmaTg3Yw1hVkQvW8dQyT3D4y9m2m1Z3o9fE7p3eX7qzYcB",
    "/ip4/203.0.113.7/tcp/31330/p2p/QmaTg3Yw1hVkQvW8dQyT3D4y9m2m1Z3o9fE7p3eX7qzYcB",
)
INVITE = Invite(name="our swarm", secret=bytes(range(32)), addresses=ADDRESSES, expires_at=2e9)


@given(
    st.text(max_size=64),
    st.binary(min_size=16, max_size=64),
    st.lists(st.text(max_size=60).map(lambda t: f"/{t}/p2p/ID"), min_size=1, max_size=6),
)
def test_round_trip(name: str, secret: bytes, addresses: list[str]) -> None:
    invite = Invite(name=name, secret=secret, addresses=tuple(addresses), expires_at=2e9)
    assert decode_invite(encode_invite(invite), now=0) == invite


def test_it_is_short_and_survives_mail_and_quotes() -> None:
    code = encode_invite(INVITE)
    assert len(code) < 300
    wrapped = "> \n".join(code[i : i + 40] for i in range(0, len(code), 40))
    assert decode_invite(f'  "{wrapped}"\r\n', now=0) == INVITE


def test_an_expired_one_says_so() -> None:
    with pytest.raises(InviteExpired, match="2 hours"):
        decode_invite(encode_invite(INVITE), now=2e9 + 7200)


@given(st.data())
def test_one_wrong_character_is_noticed(data: st.DataObject) -> None:
    code = encode_invite(INVITE)
    place = data.draw(st.integers(len(PREFIX), len(code) - 2))
    letter = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != code[place]))
    with pytest.raises(InviteInvalid):
        decode_invite(code[:place] + letter + code[place + 1 :], now=0)


@given(st.integers(0, 250))
def test_a_part_of_one_is_refused(length: int) -> None:
    code = encode_invite(INVITE)
    with pytest.raises(InviteInvalid):
        decode_invite(code[: min(length, len(code) - 2)], now=0)


@given(st.text(max_size=200))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(InviteInvalid) as caught:
        decode_invite(PREFIX + text, now=0)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "address", ["", "/", "/x", "x/p2p/ID", "/p2p/ID", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/p2p/"]
)
def test_an_address_without_a_peer_is_refused(address: str) -> None:
    code = encode_invite(replace(INVITE, addresses=(*ADDRESSES, address)))
    with pytest.raises(InviteInvalid):
        decode_invite(code, now=0)


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(INVITE)
