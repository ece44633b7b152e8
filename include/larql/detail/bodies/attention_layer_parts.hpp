// SPDX-License-Identifier: Apache-2.0
//
// Bodies of attention_layer.hpp: its halves, and batches of sequences.
#ifndef LARQL_DETAIL_BODIES_ATTENTION_LAYER_PARTS_HPP
#define LARQL_DETAIL_BODIES_ATTENTION_LAYER_PARTS_HPP

#include <larql/attention_layer.hpp>

#include <larql/attention_batch.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/indexer/selector.hpp>
#include <larql/detail/mla/expanded.hpp>
#include <larql/detail/mla/layer_rows.hpp>
#include <larql/detail/mla/projections.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>
#include <larql/kv_cache.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace larql {

// --- the halves ---

template <class T>
void attention_layer<T>::project_into(const matrix_input<T>& x, std::span<const std::size_t> positions,
                                      attention_result<T>& r, attention_workspace<T>& memory, executor* given,
                                      std::size_t sequence_length) const {
    require_plain("project");
    require_width(x);
    if (positions.size() != x.rows())
        detail::fail(errc::shape_mismatch,
                     detail::concat({positions.size(), " positions, x has ", x.rows(), " tokens"}),
                     {.subject = "positions"});
    if (x.rows() == 0) return detail::fit_no_tokens(m_spec, r);
    if (sequence_length == 0) {
        const auto [first, last] = std::minmax_element(positions.begin(), positions.end());
        sequence_length = *last + 1;
        require_one_call(*first, sequence_length);
    }
    rope_table of_length;
    if (depends_on_length(m_spec.rope)) of_length = make_rope_table(m_spec.rope, static_cast<double>(sequence_length));
    const rope_table& rope = depends_on_length(m_spec.rope) ? of_length : m_rope;
    detail::with_executor(given, worth_threads(x.rows()), [&](executor& threads) {
        const detail::block_projection<T> project(m_spec, rope, m_weights, memory.projections(), threads);
        project.query_key_value(x, {.positions = positions}, r);
    });
    r.selection = {};
}

template <class T>
void attention_layer<T>::finish_into(const tensor<T, 3>& attended, const matrix_input<T>& x, attention_result<T>& r,
                                     attention_workspace<T>& memory, executor* given) const {
    require_plain("finish");
    require_width(x);
    const mla_geometry& g = m_spec.geometry;
    const bool latent = m_spec.form == attention_form::latent;
    const std::size_t size = latent ? g.kv_lora_rank : g.v_head_dim;
    if (attended.shape(0) != x.rows() || attended.shape(1) != g.num_heads || attended.shape(2) != size)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"expected [", x.rows(), ", ", g.num_heads, ", ", size, "], got [",
                                     attended.shape(0), ", ", attended.shape(1), ", ", attended.shape(2), "]"}),
                     {.subject = "attended"});
    if (x.rows() == 0) return detail::fit_no_tokens(m_spec, r);
    detail::with_executor(given, worth_threads(x.rows()), [&](executor& threads) {
        const detail::block_projection<T> project(m_spec, m_rope, m_weights, memory.projections(), threads);
        if (latent) {
            project.from_latent(attended, r.context);
        } else {
            detail::fit(r.context, x.rows(), g.num_heads * size);
            std::copy_n(attended.data(), attended.size(), r.context.data());
        }
        project.remake_gate_input(x);
        project.apply_gate(x, r.context);
        project.output(r.context, r.out);
    });
}

// --- batches ---

template <class T>
template <class Storage>
void attention_layer<T>::require_batch(std::span<const cached_sequence<Storage>> sequences, std::size_t rows,
                                       const key_selection* selection) const {
    std::size_t tokens = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const kv_cache<Storage>* const cache = sequences[i].cache;
        const auto same = [&](const cached_sequence<Storage>& other) {
            return other.cache == cache || (other.index != nullptr && other.index == sequences[i].index);
        };
        if (cache == nullptr ||
            std::any_of(sequences.begin(), sequences.begin() + static_cast<std::ptrdiff_t>(i), same))
            detail::fail(errc::bad_value,
                         detail::concat({"that of sequence ", i, (cache == nullptr ? " is null" : " is given twice")}),
                         {.subject = "cache"});
        require_own(*cache);
        const std::size_t position = first_new(*cache, sequences[i].tokens);
        require_needed(*cache, position);
        require_index(sequences[i].index, position);
        if (sequences[i].tokens != 0)
            require_one_call(position, std::max(cache->longest(), position + sequences[i].tokens));
        require_selection(selection, sequences[i].tokens == 0 ? 0 : position + sequences[i].tokens);
        tokens += sequences[i].tokens;
    }
    if (selection != nullptr && !selection->empty() && selection->tokens() != rows)
        detail::fail(
            errc::shape_mismatch,
            detail::concat({"x has ", rows, " rows, and there are lists for ", selection->tokens(), " tokens"}),
            {.subject = "selection"});
    if (tokens != rows)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"x has ", rows, " rows, the sequences have ", tokens, " tokens"}),
                     {.subject = "sequences"});
}

template <class T>
template <class Storage>
void attention_layer<T>::attend_batch(std::span<const cached_sequence<Storage>> sequences, attention_result<T>& r,
                                      attention_workspace<T>& memory, const detail::block_projection<T>& project,
                                      executor& threads) const {
    const mla_geometry& g = m_spec.geometry;
    const bool latent = m_spec.form == attention_form::latent;
    const std::size_t rows = r.q.shape(0), heads = g.num_heads, size = latent ? g.kv_lora_rank : g.v_head_dim;
    T* out = nullptr;
    if (latent) {
        detail::fit(memory.attended(), rows, heads, size);
        out = memory.attended().data();
    } else {
        detail::fit(r.context, rows, heads * size);
        out = r.context.data();
    }
    attention_options options = this->options();
    options.threads = &threads;
    const std::vector<key_selection>& selections = memory.batch().selections;
    const auto lists_of = [&](const cached_sequence<Storage>& s) {
        return selections.empty() ? key_list_view{}
                                  : selections[static_cast<std::size_t>(&s - sequences.data())].view();
    };
    using expanded = detail::expanded_attention<T>;
    const auto expands = [&](const cached_sequence<Storage>& s) {
        return expanded::is_needed(m_spec) ||
               (lists_of(s).empty() && expanded::pays(m_spec, s.tokens, s.cache->size()));
    };
    auto& list = memory.batch().template sequences<Storage>();
    list.clear();
    std::size_t first = 0, row = 0;  // of the list, and of the sequence
    const auto attend_list = [&](std::size_t end) {
        gqa_attention_batch(detail::rows_from<const T>(r.q.data(), heads, r.q.shape(2), first, end - first), list,
                            detail::rows_from<T>(out, heads, size, first, end - first), options, memory.scratch());
        list.clear();
    };
    for (const cached_sequence<Storage>& s : sequences) {
        const bool alone = expands(s);
        if (alone) {
            attend_list(row);
            std::fill_n(out + row * heads * size, s.tokens * heads * size, T(0));  // its context is made below
            first = row + s.tokens;
        } else {
            list.push_back({.tokens = s.tokens,
                            .k = s.cache->key_rows(),
                            .v = s.cache->value_rows(),
                            .first_position = s.cache->next_position() - s.tokens,
                            .first_key_position = s.cache->first_position(),
                            .key_lists = lists_of(s)});
        }
        row += s.tokens;
    }
    attend_list(rows);
    if (latent) project.from_latent(memory.attended(), r.context);
    row = 0;
    for (const cached_sequence<Storage>& s : sequences) {
        if (expands(s)) {
            options.first_position = s.cache->next_position() - s.tokens;
            options.first_key_position = s.cache->first_position();
            options.key_lists = lists_of(s);
            expanded(m_spec, m_weights, memory.expanded(), threads)
                .run(
                    latent ? memory.projections().query : r.q, row, s.tokens, s.cache->size(),
                    [&](T* to) { detail::copy_rows_of(*s.cache, to); }, options, memory.scratch(), r.context);
        }
        row += s.tokens;
    }
}

template <class T>
template <class Storage>
bool attention_layer<T>::describe_batch(std::span<const cached_sequence<Storage>> sequences,
                                        detail::batch_buffers& lists) const {
    lists.clear();
    bool selects = false;
    for (const cached_sequence<Storage>& s : sequences) {
        lists.held.push_back(s.cache->size());
        const std::size_t position = first_new(*s.cache, s.tokens);
        selects = selects || m_spec.indexer.selects(position + s.tokens);
        for (std::size_t t = 0; t < s.tokens; ++t) lists.positions.push_back(position + t);
        if (depends_on_length(m_spec.rope))
            lists.tables.push_back(make_rope_table(m_spec.rope, static_cast<double>(position + s.tokens)));
    }
    for (std::size_t i = 0; i < lists.tables.size(); ++i)
        lists.of_tokens.insert(lists.of_tokens.end(), sequences[i].tokens, &lists.tables[i]);
    return selects;
}

template <class T>
template <class Storage>
void attention_layer<T>::append_batch(std::span<const cached_sequence<Storage>> sequences,
                                      const tensor<T, 3>& index_keys, const attention_result<T>& r) const {
    const bool latent = caches_latents(m_spec), indexed = m_spec.indexer.own();
    std::size_t row = 0;
    for (const cached_sequence<Storage>& s : sequences) {
        const auto rows = [&](const tensor<T, 3>& all) {
            return detail::rows_from<const T>(all.data(), all.shape(1), all.shape(2), row, s.tokens);
        };
        if (s.index != nullptr)
            s.index->append_indexed(rows(index_keys));
        else if (m_spec.kv_layer)
            continue;
        else if (latent && indexed)
            s.cache->append_indexed(rows(index_keys), rows(r.k));
        else if (latent)
            s.cache->append(rows(r.k));
        else if (indexed)
            s.cache->append_indexed(rows(index_keys), rows(r.k), rows(r.v));
        else
            s.cache->append(rows(r.k), rows(r.v));
        row += s.tokens;
    }
}

template <class T>
template <class Storage, class Select>
void attention_layer<T>::select_batch(std::span<const cached_sequence<Storage>> sequences, const Select& select,
                                      std::vector<key_selection>& of_sequences, attention_result<T>& r) const {
    std::size_t row = 0;
    for (const cached_sequence<Storage>& s : sequences) {
        const bool selects = s.tokens != 0 && m_spec.indexer.selects(s.cache->next_position());
        of_sequences.push_back(selects ? select(s, row) : key_selection{});
        row += s.tokens;
    }
    if (std::ranges::all_of(of_sequences, &key_selection::empty)) return;
    std::vector<std::uint32_t> all;  // of a token that needs no list
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const std::size_t tokens = sequences[i].tokens, first = sequences[i].cache->next_position() - tokens;
        for (std::size_t t = 0; t < tokens; ++t) {
            if (!of_sequences[i].empty()) {
                r.selection.append(of_sequences[i].of(t));
                continue;
            }
            while (all.size() < first + t + 1) all.push_back(static_cast<std::uint32_t>(all.size()));
            r.selection.append(std::span(all).first(first + t + 1));
        }
    }
}

template <class T>
template <class Storage>
void attention_layer<T>::run_batch(const matrix_input<T>& x, std::span<const cached_sequence<Storage>> sequences,
                                   attention_result<T>& r, attention_workspace<T>& memory,
                                   const forward_options& given) const {
    require_plain("forward_batch", true);
    require_width(x);
    require_batch(sequences, x.rows(), given.selection);
    if (x.rows() == 0) return detail::fit_no_tokens(m_spec, r);
    detail::batch_buffers& lists = memory.batch();
    const bool selects = describe_batch(sequences, lists);
    const detail::token_places at{.positions = lists.positions, .tables = lists.of_tokens};
    try {
        detail::with_executor(given.threads, worth_threads(x.rows()), [&](executor& threads) {
            const detail::block_projection<T> project(m_spec, m_rope, m_weights, memory.projections(), threads);
            tensor<T, 2> latent;
            const bool own = m_spec.indexer.own();
            project.query_key_value(x, at, r, own && selects && !m_spec.indexer.from_input ? &latent : nullptr);
            r.selection = {};
            if (own) {
                const detail::block_indexer<T> indexer(m_spec, m_rope, m_weights, threads);
                append_batch(sequences, indexer.keys(x, at), r);
                if (selects) {
                    const auto queries = indexer.queries(x, latent, at);
                    const auto select = [&](const cached_sequence<Storage>& s, std::size_t row) {
                        const kv_cache<Storage>& keys = s.index != nullptr ? *s.index : *s.cache;
                        return indexer.select(queries, row, s.tokens, detail::rows_of_cached<T>(keys.index_rows()));
                    };
                    select_batch(sequences, select, lists.selections, r);
                }
            } else {
                append_batch(sequences, {}, r);
                const auto select = [&](const cached_sequence<Storage>& s, std::size_t row) {
                    return given.selection->part(row, s.tokens);
                };
                if (selects) select_batch(sequences, select, lists.selections, r);
            }
            attend_batch(sequences, r, memory, project, threads);
            project.apply_gate(x, r.context);
            project.output(r.context, r.out);
        });
    } catch (...) {
        for (std::size_t i = 0; i < sequences.size(); ++i) {
            if (!m_spec.kv_layer) sequences[i].cache->truncate(lists.held[i]);
            if (sequences[i].index != nullptr)
                sequences[i].index->truncate(sequences[i].cache->next_position() - sequences[i].tokens);
        }
        throw;
    }
}

}  // namespace larql

#endif
