"""Grouping: every prompt once, largest first, within the limits, little padding, equal images together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.inference.batches import MOST_WASTE, pieces, plan_pieces
from vlmeval.placement.workload import ImageTokens
from vlmeval.types import Message, Task, TextPart
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.prompt_size import PromptSize


def size(text: int, image: int = 0, keys: tuple[str, ...] = ()) -> PromptSize:
    return PromptSize(text_tokens=text, images=ImageTokens(image_tokens=image), image_keys=keys)


SIZES = st.lists(
    st.builds(
        size,
        st.integers(1, 3000),
        st.sampled_from([0, 256, 1024]),
        st.one_of(st.just(()), st.tuples(st.sampled_from("abcdef"))),
    ),
    max_size=60,
)


def room_of(tokens: int) -> int:
    """A limit as a card has it: the larger the worst prompt, the fewer."""
    return max(1, 4096 // tokens)


@settings(deadline=None, max_examples=60)
@given(SIZES)
def test_every_prompt_once_within_the_limit_and_with_little_padding(sizes: list[PromptSize]) -> None:
    found = pieces(sizes, lambda worst: room_of(worst.tokens))
    assert sorted(position for piece in found for position in piece) == list(range(len(sizes)))
    for piece in found:
        lengths = [sizes[position].tokens for position in piece]
        worst = max(sizes[p].text_tokens for p in piece) + max(sizes[p].images.image_tokens for p in piece)
        assert len(piece) == 1 or len(piece) <= room_of(worst)
        assert 1 - sum(lengths) / (len(piece) * max(lengths)) <= MOST_WASTE + 1e-9


def test_the_largest_go_first() -> None:
    lengths = [5, 900, 80, 700, 81, 6]
    found = pieces([size(length) for length in lengths], lambda _: 2)
    assert [[lengths[position] for position in piece] for piece in found] == [[900, 700], [81, 80], [6, 5]]


def test_prompts_about_one_image_share_a_piece_wherever_they_stand_in_the_file() -> None:
    sizes = [size(100 - row % 5, 256, (f"image {row % 5}",)) for row in range(20)]  # circular copies at the end
    found = pieces(sizes, lambda _: 9)
    assert [len({sizes[position].image_keys for position in piece}) for piece in found] == [2, 2, 1]
    assert [len(piece) for piece in found] == [8, 8, 4]


def test_more_prompts_about_one_image_than_fit_lie_in_pieces_next_to_each_other() -> None:
    sizes = [size(50, 256, ("one" if row % 2 else f"other {row}",)) for row in range(40)]
    found = pieces(sizes, lambda _: 6)
    holding = [number for number, piece in enumerate(found) if any(sizes[p].image_keys == ("one",) for p in piece)]
    assert holding == list(range(holding[0], holding[0] + len(holding)))
    assert len(holding) <= 5


def test_a_prompt_over_every_limit_goes_alone() -> None:
    assert pieces([size(9), size(10**6), size(9)], lambda worst: 0 if worst.tokens > 99 else 2) == [(1,), (0, 2)]


def test_a_number_fixes_the_batch_whatever_the_padding() -> None:
    class Sized(BaseModel):
        def prompt_size(self, message: object, task: Task | None = None) -> PromptSize:
            return size(len(str(message)))

    messages: list[list[Message]] = [[TextPart(type="text", value="x" * n)] for n in (1, 9000, 5, 70, 300)]
    task = Task(name="t", type="VQA")
    assert [len(piece) for piece in plan_pieces(Sized(), task, messages, 2)] == [2, 2, 1]
    assert plan_pieces(Sized(), task, messages, 1) == [(1,), (4,), (3,), (2,), (0,)]
    assert plan_pieces(Sized(), task, messages, None) == [(1,), (4,), (3,), (2,), (0,)], "one by one where unsaid"
