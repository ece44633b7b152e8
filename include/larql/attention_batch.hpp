// SPDX-License-Identifier: Apache-2.0
//
// Attention of many sequences in one call, each with keys and values of its own length and place: what a server that
// decodes for many users runs. Threads take the work of all sequences as one list, so that none waits for another's
// sequence to end.
#ifndef LARQL_ATTENTION_BATCH_HPP
#define LARQL_ATTENTION_BATCH_HPP

#include <larql/detail/concat.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/key_selection.hpp>
#include <larql/rows_view.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace larql {

/// One sequence of a batch: how many of the batch's query tokens are its own, and what they attend to. Fields as those
/// of attention_options are the sequence's.
template <class K, class V = K>
struct attention_sequence {
    using key_type = K;
    using value_type = V;

    std::size_t tokens = 0;                       ///< T: rows of q and out, after those of the sequences before
    rows_view<const K> k{};                       ///< [S, G, D], in one piece or in pages
    rows_view<const V> v{};                       ///< [S, G, V]
    std::optional<std::size_t> first_position{};  ///< of the first of its tokens; default S - T
    std::size_t first_key_position = 0;
    key_list_view key_lists{};
    key_mask_view key_mask{};
};

namespace detail {

/// The options of one sequence: those that all share, and its own.
template <class K, class V>
attention_options options_of(const attention_sequence<K, V>& s, const attention_options& shared) {
    attention_options own = shared;
    own.first_position = s.first_position;
    own.first_key_position = s.first_key_position;
    own.key_lists = s.key_lists;
    own.key_mask = s.key_mask;
    return own;
}

/// A sequence's shapes, checked as those of a call of its own.
template <class K, class V>
attention_shapes read_sequence_shapes(const attention_sequence<K, V>& s, std::size_t number, const operand_shape& q,
                                      std::size_t value_size, const attention_options& options) {
    const attention_shapes shapes{{s.tokens, q.heads, q.size},
                                  read_operand_shape(s.k.shape(), options.num_kv_heads, "k", "num_kv_heads"),
                                  read_operand_shape(s.v.shape(), options.num_kv_heads, "v", "num_kv_heads")};
    try {
        check_attention_shapes(shapes, options);
        if (shapes.v.size != value_size)
            fail(errc::shape_mismatch, concat({"value head size ", shapes.v.size, ", out has ", value_size}),
                 {.subject = "v"});
    } catch (const error& e) {
        fail(e.code(), e.what(), {.subject = concat({"sequence ", number})});
    }
    return shapes;
}

}  // namespace detail

/// gqa_attention_asym for each sequence of a batch, in one call: row by row the bits that a call of its own gives.
///
/// @param q          [N, H, D]  the queries of all sequences, one sequence after the other; or [N, H * D]
/// @param list       attention_sequence objects side by side in memory (a vector, an array, a span), whose `tokens` sum
///                   to N
/// @param out        [N, H, V] or [N, H * V], as gqa_attention_into takes it
/// @param options    what all sequences share; what attention_sequence has is not to be given here
/// @param scratch    reused from call to call; one call at a time
/// @throws error as gqa_attention_into, naming the sequence by its number from 0; errc::bad_value for an option that is
///         a sequence's own. Nothing is computed then.
template <class Q, class Sequences, class Out>
void gqa_attention_batch(const Q& q, const Sequences& list, Out&& out, const attention_options& options,
                         attention_scratch& scratch) {
    const std::span sequences(list);
    using sequence = typename decltype(sequences)::value_type;
    using K = typename sequence::key_type;
    using V = typename sequence::value_type;
    using compute = std::conditional_t<std::is_same_v<K, double> || std::is_same_v<V, double>, double,
                                       detail::attention_compute_t<Q>>;
    static_assert(detail::has_rows_in_memory<Out> && std::is_same_v<detail::attention_element_t<Out>, compute>,
                  "larql: the results of a batch go to memory, as float (as double if an operand is)");
    if (options.first_position || options.first_key_position != 0 || !options.key_lists.empty() ||
        !options.key_mask.empty())
        detail::fail(errc::bad_value, "positions, key_lists and key_mask are each sequence's own",
                     {.subject = "options"});
    const detail::operand_shape q_shape =
        detail::read_operand_shape(q.shape(), options.num_q_heads, "q", "num_q_heads");
    const detail::operand_shape got = detail::read_operand_shape(out.shape(), q_shape.heads, "out", "q");
    std::size_t tokens = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        (void)detail::read_sequence_shapes(sequences[i], i, q_shape, got.size,
                                           detail::options_of(sequences[i], options));
        tokens += sequences[i].tokens;
    }
    if (tokens != q_shape.tokens || tokens != got.tokens)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"q has ", q_shape.tokens, " rows, out ", got.tokens, ", the sequences have ",
                                     tokens, " tokens"}),
                     {.subject = "sequences"});
    const auto out_rows = detail::find_rows(out, got);
    if (!out_rows) detail::fail(errc::shape_mismatch, "a row's elements do not lie side by side", {.subject = "out"});
    const detail::attention_operand<compute> q_rows(q, q_shape, "q");

    const auto for_each = [&](const auto& use) {
        std::size_t first = 0;
        for (std::size_t i = 0; i < sequences.size(); first += sequences[i++].tokens) {
            const sequence& s = sequences[i];
            const attention_options own = detail::options_of(s, options);
            auto q_of = q_rows.rows();
            q_of.data = q_of.row(first, 0);
            auto problem = detail::make_attention_problem<compute, K, V>(
                q_of, detail::rows_of(s.k, "k"), detail::rows_of(s.v, "v"),
                detail::read_sequence_shapes(s, i, q_shape, got.size, own), own);
            problem.out = *out_rows;
            problem.out.data = out_rows->row(first, 0);
            if (problem.tokens != 0 && problem.heads != 0 && problem.value_size != 0) use(problem);
        }
    };
    double flops = 0;
    for_each([&](const auto& problem) { flops += problem.flops(); });
    const detail::simd_level level = detail::active_simd_level();
    detail::with_executor(options.threads, flops > detail::attention_worth_threads, [&](executor& threads) {
        std::vector<detail::blocked_call>& calls = scratch.calls();
        calls.clear();
        const std::size_t concurrency =
            std::max<std::size_t>(1, detail::thread_count(threads) / std::max<std::size_t>(1, sequences.size()));
        for_each([&](const auto& problem) {
            if constexpr (std::is_same_v<compute, float>) {
                if (problem.lists.empty()) {
                    calls.emplace_back(detail::make_blocked_problem(problem, level), concurrency);
                    return;
                }
            }
            if (problem.lists.empty())
                detail::run_attention(problem, level, threads, scratch.memory());
            else
                detail::attend_listed(problem, level, threads, scratch.memory(), scratch.listed());
        });
        std::sort(calls.begin(), calls.end(), [](const auto& a, const auto& b) { return a.flops() > b.flops(); });
        if (!calls.empty()) detail::run_calls(calls, threads, scratch.memory());
    });
}

/// As above with scratch memory of its own.
template <class Q, class Sequences, class Out>
void gqa_attention_batch(const Q& q, const Sequences& list, Out&& out, const attention_options& options = {}) {
    attention_scratch scratch;
    gqa_attention_batch(q, list, out, options, scratch);
}

}  // namespace larql

#endif
