"""The shop, while its servers die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from orders import NotStored, Orders


@pytest.fixture
def shop(valkey_sentinel) -> Iterator[Orders]:
    orders = Orders(valkey_sentinel.sentinels, valkey_sentinel.name)
    yield orders
    orders.close()


def test_an_order_is_there(shop):
    shop.place(1, "tea")
    assert shop.all() == {1: "tea"}


def test_every_test_begins_without_orders(shop):
    assert shop.all() == {}


def test_orders_outlive_the_primary(shop, valkey_sentinel, faults):
    old = valkey_sentinel.primary()
    for number in range(20):
        shop.place(number, "tea")
    faults.kill("primary")
    shop.place(20, "cake")
    assert valkey_sentinel.wait_new_primary(old) != old
    assert sorted(shop.all()) == list(range(21))


def test_a_hanging_primary_is_replaced_too(shop, faults):
    shop.place(1, "tea")
    faults.pause("primary")
    shop.place(2, "cake")
    faults.heal()
    assert shop.all() == {1: "tea", 2: "cake"}


def test_without_replicas_nothing_is_confirmed(valkey_sentinel, faults):
    shop = Orders(valkey_sentinel.sentinels, valkey_sentinel.name, patience=1.0)
    faults.kill("replica:*")
    with pytest.raises(NotStored):
        shop.place(1, "tea")
    shop.close()


@pytest.mark.valkey(network="proxy")
def test_an_order_is_placed_on_the_side_of_the_majority(shop, valkey_sentinel, faults):
    old = valkey_sentinel.primary()
    faults.partition("primary")
    valkey_sentinel.wait_new_primary(old)
    shop.place(1, "tea")
    faults.heal()
    assert shop.all() == {1: "tea"}
