"""The closed vocabularies that all tasks share: a small model can learn each of these words."""

from __future__ import annotations

NAMES = (
    "Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Kate", "Lena", "Mia",
    "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Uma", "Viktor", "Walter", "Yara", "Zoe",
)  # fmt: skip
CITIES = (
    "Oslo", "Paris", "Rome", "Vienna", "Lisbon", "Prague", "Dublin", "Athens", "Bern", "Madrid", "London", "Berlin",
    "Warsaw", "Riga", "Milan", "Lyon",
)  # fmt: skip
JOBS = (
    "builder", "teacher", "doctor", "painter", "writer", "baker", "pilot", "singer", "farmer", "judge", "nurse",
    "chef",
)  # fmt: skip
ANIMALS = ("cat", "dog", "horse", "crow", "fox", "bear", "wolf", "duck", "goat", "mouse", "rabbit", "snake")
COLORS = ("red", "green", "blue", "white", "black", "yellow", "brown", "pink")
FOODS = ("bread", "rice", "soup", "cake", "cheese", "apples", "fish", "salad", "pasta", "honey")
THINGS = ("lamp", "chair", "desk", "cup", "hat", "pen", "bag", "book", "clock", "shirt", "box", "ring")
# What a field of a record or a card may hold.
FIELDS = {
    "name": NAMES,
    "city": CITIES,
    "job": JOBS,
    "pet": ANIMALS,
    "color": COLORS,
    "food": FOODS,
    "item": THINGS,
}
