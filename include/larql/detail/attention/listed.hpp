// SPDX-License-Identifier: Apache-2.0
//
// Attention whose tokens each have a list of keys. The listed rows of one key/value head are gathered into memory of
// their own, where the kernels for plain ranges work on them: a row is copied once and meets all query heads of its
// group. Tokens before the first whose list leaves out a key that it could see are one plain call.
#ifndef LARQL_DETAIL_ATTENTION_LISTED_HPP
#define LARQL_DETAIL_ATTENTION_LISTED_HPP

#include <larql/detail/attention/blocked.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/ceil_div.hpp>
#include <larql/detail/concat.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace larql::detail {

/// Holds lists against T tokens and S keys.
/// @throws error shape_mismatch, bad_value
inline void check_key_lists(const key_list_view& lists, std::size_t tokens, std::size_t keys) {
    if (lists.empty()) return;
    const auto refuse = [](errc code, const std::string& problem) { fail(code, problem, {.subject = "key_lists"}); };
    if (lists.tokens() != tokens)
        refuse(errc::shape_mismatch, concat({lists.tokens(), " lists, q has ", tokens, " tokens"}));
    if (lists.begins.front() != 0 || lists.begins.back() != lists.keys.size())
        refuse(errc::bad_value, concat({"expected begins from 0 to ", lists.keys.size(), ", got ", lists.begins.front(),
                                        " to ", lists.begins.back()}));
    for (std::size_t t = 0; t < tokens; ++t) {
        if (lists.begins[t + 1] < lists.begins[t] || lists.begins[t + 1] > lists.keys.size())
            refuse(errc::bad_value, concat({"list ", t, " ends at ", lists.begins[t + 1], ", it begins at ",
                                            lists.begins[t], " of ", lists.keys.size()}));
        const std::span<const std::uint32_t> list = lists.of(t);
        const auto unordered = std::ranges::adjacent_find(list, std::ranges::greater_equal{});
        if (unordered != list.end())
            refuse(errc::bad_value,
                   concat({"expected ascending positions, list ", t, " has ", unordered[0], ", ", unordered[1]}));
        if (!list.empty() && list.back() >= keys)
            refuse(errc::shape_mismatch, concat({"list ", t, " has key ", list.back(), ", there are ", keys}));
    }
}

/// The keys of a token's list that its mask lets through.
inline std::span<const std::uint32_t> visible_keys(const attention_mask& mask, const key_list_view& lists,
                                                   std::size_t token) {
    const std::span<const std::uint32_t> list = lists.of(token);
    const key_range range = mask.visible(token);
    const auto begin = std::ranges::lower_bound(list, range.begin), end = std::ranges::lower_bound(list, range.end);
    return {begin, end};
}

/// How many tokens at the beginning see all that their mask lets through.
inline std::size_t leading_whole_tokens(const attention_mask& mask, const key_list_view& lists, std::size_t tokens) {
    std::size_t t = 0;
    for (; t < tokens; ++t) {
        const key_range range = mask.visible(t);
        if (visible_keys(mask, lists, t).size() != range.end - range.begin) break;
    }
    return t;
}

/// Working memory of one worker.
struct listed_memory {
    aligned_buffer k, v, kernels;
};

/// One token and one key/value head of a call: its rows as a call of their own.
template <class T, class K, class V>
struct listed_item {
    const attention_problem<T, K, V>& whole;
    std::size_t token, kv_head;
    std::span<const std::uint32_t> keys;

    /// Copies rows [begin, end) of the list.
    template <class E>
    void gather(const attention_rows<const E>& rows, std::size_t size, key_range range, E* to) const {
        for (std::size_t i = range.begin; i < range.end; ++i)
            std::copy_n(rows.row(keys[i], kv_head), elements_of<E>(size), to + i * elements_of<E>(size));
    }

    void run(simd_level level, executor& threads, listed_memory& memory) const {
        const std::size_t key_width = elements_of<K>(whole.key_size), value_width = elements_of<V>(whole.value_size);
        K* const k = memory.k.get<K>(keys.size() * key_width);
        V* const v = whole.v_is_k ? nullptr : memory.v.get<V>(keys.size() * value_width);
        constexpr std::size_t part = 256;
        threads.run(ceil_div(keys.size(), part), [&](std::size_t i) {
            const key_range range{i * part, std::min((i + 1) * part, keys.size())};
            gather(whole.k, whole.key_size, range, k);
            if (v != nullptr) gather(whole.v, whole.value_size, range, v);
        });
        attention_problem<T, K, V> one = whole;
        one.k = {k, static_cast<std::ptrdiff_t>(key_width), 0, {}};
        one.v = {v, static_cast<std::ptrdiff_t>(value_width), 0, {}};
        if constexpr (std::is_same_v<K, V>)
            if (v == nullptr) one.v = one.k;
        one.q.data = whole.q.row(token, kv_head * whole.group());
        one.out.data = whole.out.row(token, kv_head * whole.group());
        if (whole.narrowed.data != nullptr) one.narrowed.data = whole.narrowed.row(token, kv_head * whole.group());
        if (whole.log_sum != nullptr) one.log_sum = whole.log_sum + token * whole.heads + kv_head * whole.group();
        if (whole.sinks != nullptr) one.sinks = whole.sinks + kv_head * whole.group();
        one.tokens = one.kv_heads = 1;
        one.heads = whole.group();
        one.keys = keys.size();
        one.mask = {.keys = keys.size(), .causal = false};
        run_attention(one, level, threads, memory.kernels);
    }
};

/// The whole call. Many items are divided among the threads, few are done one after another by all of them: neither
/// changes a bit.
template <class T, class K, class V>
void attend_listed(const attention_problem<T, K, V>& p, simd_level level, executor& threads, aligned_buffer& memory,
                   std::vector<listed_memory>& workers) {
    attention_problem<T, K, V> whole = p;
    whole.tokens = leading_whole_tokens(p.mask, p.lists, p.tokens);
    if (whole.tokens != 0) run_attention(whole, level, threads, memory);
    const std::size_t items = (p.tokens - whole.tokens) * p.kv_heads, concurrency = thread_count(threads);
    const auto run = [&](std::size_t i, executor& own, listed_memory& scratch) {
        const std::size_t token = p.tokens - 1 - i / p.kv_heads;
        listed_item<T, K, V>{p, token, i % p.kv_heads, visible_keys(p.mask, p.lists, token)}.run(level, own, scratch);
    };
    const bool divided = items >= 2 * concurrency;
    const std::size_t count = divided ? concurrency : 1;
    if (workers.size() < count) workers.resize(count);
    if (!divided) {
        for (std::size_t i = 0; i < items; ++i) run(i, threads, workers.front());
        return;
    }
    std::atomic<std::size_t> next{0};
    threads.run(count, [&](std::size_t worker) {
        serial_executor own;
        for (std::size_t i = next.fetch_add(1); i < items; i = next.fetch_add(1)) run(i, own, workers[worker]);
    });
}

}  // namespace larql::detail

#endif
