"""What is large stays where it was read: payloads in their message, values in their request."""

from __future__ import annotations

from rakit.multiraft import bulk, frames, pages, stored_entries
from rakit.node.partition import batches, columns
from rakit.node.produce import Dispatch
from tests.mutants import mutant, named_in

paged = named_in("multiraft/test_pages.py")
framed = named_in("multiraft/host/test_frames.py")
bulky = named_in("multiraft/host/test_bulk.py")
columned = named_in("node/partition/test_columns.py")
forwarded = named_in("node/forwarding/test_produce_path.py")
batched = named_in("node/partition/test_batches.py")

MUTANTS = [
    mutant(
        "a_value_is_written_over_by_another_head",
        32,
        "safety P9",
        (pages.become, "end - start, None", "end - start, start"),
        paged("the_end_of_a_message_becomes_a_value_where_it_lies"),
    ),
    mutant(
        "what_lies_beside_its_place_becomes_a_value",
        32,
        "decision 0025",
        (pages.become, "start != lent.place or ", "start < 0 or "),
        paged("what_does_not_lie_in_place_becomes_nothing"),
    ),
    mutant(
        "what_is_followed_by_more_of_its_message_becomes_a_value",
        32,
        "safety P9",
        (pages.become, " or end != lent.start + lent.size_bytes", ""),
        paged("what_does_not_lie_in_place_becomes_nothing"),
    ),
    mutant(
        "a_message_that_is_not_in_place_passes_for_whole_pages",
        32,
        "decision 0025",
        (pages.pages_of, "lent.start % PAGE_BYTES or ", ""),
        paged("a_message_is_no_whole_pages_before_it_is_a_value"),
    ),
    mutant(
        "a_message_of_one_entry_is_read_to_the_beginning_of_a_page",
        32,
        "decision 0025",
        (frames._memory_for, "page_at=before", "page_at=0"),
        framed("an_entry_that_ends_its_message_is_stored_where_it_was_read"),
    ),
    mutant(
        "an_entry_is_copied_out_of_its_place",
        32,
        "decision 0025",
        (stored_entries._in_place, "pages.become(payload, head)", "None"),
        framed("an_entry_that_ends_its_message_is_stored_where_it_was_read"),
    ),
    mutant(
        "the_first_payload_of_several_passes_for_the_rest_of_the_message",
        32,
        "decision 0025",
        (bulk.payload_at, "return at if to == end else 0", "return at"),
        bulky("the_payload_that_ends_a_request_is_found_by_its_first_bytes"),
    ),
    mutant(
        "the_first_message_of_several_passes_for_the_rest_of_the_request",
        32,
        "decision 0025",
        (bulk.payload_at, " and end == size_bytes", ""),
        bulky("the_payload_that_ends_a_request_is_found_by_its_first_bytes"),
    ),
    mutant(
        "values_that_stand_behind_other_columns_are_not_seen",
        32,
        "contract 4",
        (columns.large_values, "None if others.values else (others, values)", "others, values"),
        columned("what_no_encoder_writes_is_left_to_protobuf"),
    ),
    mutant(
        "a_value_that_ends_behind_its_batch_is_stored",
        32,
        "contract 4",
        (columns.large_values, "at > end or ", ""),
        columned("what_no_encoder_writes_is_left_to_protobuf"),
    ),
    mutant(
        "small_values_are_looked_at_one_by_one",
        32,
        "decision 0025",
        (columns.large_values, " or len(values) > end // LARGE_VALUE_BYTES_MIN", ""),
        columned("small_values_are_left_to_protobuf"),
    ),
    mutant(
        "a_look_at_small_values_goes_on",
        32,
        "decision 0025",
        (
            columns.large_values,
            " or len(values) > _SMALL_COUNT_MAX + at // LARGE_VALUE_BYTES_MIN",
            "",
        ),
        columned("a_look_at_small_values_ends_soon"),
    ),
    mutant(
        "a_batch_that_lies_in_its_request_goes_no_further",
        32,
        "decision 0025",
        (Dispatch.send, "content=bytes(batch.content)", "content=batch.content"),
        forwarded("a_batch_that_lies_in_its_request_travels_as_bytes_to_another_node"),
    ),
    mutant(
        "columns_of_large_values_are_not_checked",
        32,
        "contract 4",
        (batches._admit_columns, "        check(others, values)\n", ""),
        batched("columns_of_large_values_that_do_not_fit_together_are_refused"),
    ),
]
