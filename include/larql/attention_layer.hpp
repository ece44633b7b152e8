// SPDX-License-Identifier: Apache-2.0
//
// One attention block: hidden states in, block output out, from weights in any of the three forms, with or without a
// cache. It is what ties the rest together and the definition of what the forms mean:
//     factored, dense: q, k, v of every head, then attention
//     latent:          keys and values stay in the latent; the query is carried there (k_b) and the result back (v_b),
//                      unless making each head's keys and values of the latent is cheaper, as for many tokens at once
// Plain grouped-query attention is the factored form without latents; compressed attention has that form alone.
#ifndef LARQL_ATTENTION_LAYER_HPP
#define LARQL_ATTENTION_LAYER_HPP

#include <larql/attention_form.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/detail/mla/batch_buffers.hpp>
#include <larql/detail/mla/projection_buffers.hpp>
#include <larql/detail/separate.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/key_selection.hpp>
#include <larql/kv_cache.hpp>
#include <larql/matrix_input.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace larql {

namespace detail {
template <class T>
class block_projection;
}  // namespace detail

/// What a block computed for T new tokens.
template <class T>
struct attention_result {
    tensor<T, 3> q{};  ///< [T, H, D], rotated; latent form: [T, H, R + P]
    /// [T, G, D], rotated, without entries; where latents are cached (caches_latents), [T, 1, R + P]. No tokens if the
    /// block shares another's keys.
    tensor<T, 3> k{};
    tensor<T, 3> v{};        ///< [T, G, V]; likewise [T, 1, R]
    tensor<T, 2> context{};  ///< [T, H*V], before the output projection
    tensor<T, 2> out{};      ///< [T, E]
    /// Of a sparse block: the keys that each token saw, which a block that shares them takes. Empty: all.
    key_selection selection{};
};

/// Working memory that the calls of blocks can share, so that a decode loop allocates nothing. Grows to the largest
/// call; holds nothing between calls. One call at a time, of any layers.
template <class T>
class attention_workspace {
public:
    /// For attention_layer.
    [[nodiscard]] detail::projection_buffers<T>& projections() noexcept { return m_projections; }
    [[nodiscard]] attention_scratch& scratch() noexcept { return m_scratch; }
    [[nodiscard]] tensor<T, 3>& attended() noexcept { return m_attended; }
    [[nodiscard]] detail::expanded_buffers<T>& expanded() noexcept { return m_expanded; }
    [[nodiscard]] detail::batch_buffers& batch() noexcept { return m_batch; }

private:
    detail::projection_buffers<T> m_projections{};
    attention_scratch m_scratch{};
    tensor<T, 3> m_attended = tensor<T, 3>::from_shape({0, 0, 0});  // [T, H, R], of latent form
    detail::expanded_buffers<T> m_expanded{};
    detail::batch_buffers m_batch{};
};

/// One sequence of a batch: where its tokens so far are cached, and how many of the batch's rows are its new ones.
template <class Storage>
struct cached_sequence {
    kv_cache<Storage>* cache = nullptr;
    std::size_t tokens = 0;
    kv_cache<Storage>* index = nullptr;  ///< of the indexer's keys, where they have a cache of their own
};

/// What a call of a block may be given beside its input.
struct forward_options {
    /// For a block that shares the selection of another (`spec().indexer.shared`): that block's result for the same
    /// tokens, of a batch for those of all sequences. It may be null, or empty, while no more than top_k tokens have
    /// been seen.
    const key_selection* selection = nullptr;
    executor* threads = nullptr;  ///< null: threads of its own when the work is worth it
};

/// An attention block: a spec and its weights. Nothing in it changes after it was made: copies share the weights, and
/// calls may run at once from several threads.
///
/// Rotation follows the length of the sequence where its kind does (`dynamic`, `longrope`): a call rotates the tokens
/// that it is given with the frequencies of a sequence that ends with them. What a cache holds stays as it was rotated,
/// as in transformers.
///
/// A block that shares another's keys and values (`spec().kv_layer`) reads that block's cache, and has none. For each
/// piece of a sequence the other block runs first, which puts the tokens' keys and values there; then this one, with
/// the hidden states of the same tokens and the same cache, in which it changes nothing. drop_front comes after both.
/// Which cache a block reads: model_config::kv_block. If it has an indexer of its own, `make_cache` gives a cache for
/// the keys of that alone, and forward takes both.
template <class T>
class attention_layer {
public:
    /// @throws error errc::missing_tensor, errc::shape_mismatch or errc::bad_value, naming the tensor
    attention_layer(attention_spec spec, attention_weights<T> weights);

    [[nodiscard]] const attention_spec& spec() const noexcept { return m_spec; }

    /// A cache of the layout that this layer's form needs.
    /// @tparam Storage   float, bf16, f16, f8_e4m3 or q8_0_block
    /// @param  capacity  tokens; memory is touched as tokens arrive
    /// @param  rollback  tokens that `truncate` can always take back, such as a draft that is rejected; only compressed
    ///                   attention, which leaves its window behind, has a limit and takes memory for it
    /// @throws error errc::bad_value for a block that shares the keys and values of another and has no indexer
    template <class Storage = float>
    [[nodiscard]] kv_cache<Storage> make_cache(std::size_t capacity, std::size_t rollback = default_rollback) const;

    /// Attends over these tokens alone.
    ///
    /// @param x        [T, E]  the block's input after the input norm
    /// @param threads  null: threads of its own when the work is worth it
    /// @return         every intermediate that a comparison wants
    /// @throws error errc::shape_mismatch if x is not E wide; errc::bad_value for a shared selection that is needed and
    ///         not given, or given in vain, and for a block that shares keys and values, which are in a cache
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, executor* threads = nullptr) const {
        return forward(x, forward_options{.threads = threads});
    }
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, const forward_options& given) const;

    /// Attends over the tokens of a cache and these, which are appended to it: token by token gives what one pass
    /// gives.
    ///
    /// @param cache  from make_cache; the first new token has position cache.next_position(). For a block that shares
    ///               another's keys and values that block's cache, which holds those of these tokens already: the last
    ///               of them has position cache.next_position() - 1, and nothing is appended
    /// @throws error errc::limit_exceeded if the cache has no room; errc::shape_mismatch if it is not this layer's;
    ///         errc::bad_value past the trained length of a model whose frequencies follow its first call (Qwen 1), or,
    ///         where keys are shared, for the cache of another layer or one that does not hold these tokens yet;
    ///         and as above. What is thrown, here or by a task of the executor, leaves the cache as it was.
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              executor* threads = nullptr) const {
        return forward(x, cache, forward_options{.threads = threads});
    }
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              const forward_options& given) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        forward_into(x, cache, r, memory, given);
        return r;
    }

    /// forward of a block that attends to keys of another and has an indexer of its own (Mistral-Large-4).
    ///
    /// @param cache  of the other block, as above
    /// @param index  from make_cache: keys of this block's indexer, to which those of these tokens are appended
    /// @throws error errc::shape_mismatch or errc::bad_value for an index that is not this block's, or holds other
    ///         tokens than `cache` has before these; and as above
    template <class Storage>
    [[nodiscard]] attention_result<T> forward(const matrix_input<T>& x, kv_cache<Storage>& cache,
                                              kv_cache<Storage>& index, const forward_options& given = {}) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        forward_into(x, cache, r, memory, given, &index);
        return r;
    }

    /// forward into a result and working memory of the caller's. When calls of the same number of tokens repeat,
    /// nothing is allocated, nor opened or read from a file, if: the weights are in memory (see weight_storage) in a
    /// type that products compute from (see matrix_of); there are at most 16 tokens, as `x` float in memory; an
    /// executor is given; and the attention is neither dense, sparse nor compressed, does not join a kv_b of a
    /// checkpoint's k_b and v_b (factored form), and has frequencies that do not follow the sequence's length.
    ///
    /// @param r       what it holds is overwritten; its memory is used again where shapes agree
    /// @param memory  likewise; one call at a time
    /// @param index   null, or as above
    template <class Storage>
    void forward_into(const matrix_input<T>& x, kv_cache<Storage>& cache, attention_result<T>& r,
                      attention_workspace<T>& memory, const forward_options& given = {},
                      kv_cache<Storage>* index = nullptr) const;

    /// forward of many sequences at once, each with a cache of its own: weights are read once for all their tokens, and
    /// threads share the attention of all. Rows are those of single calls, up to the rounding of products of another
    /// number of rows.
    ///
    /// @param x          [N, E]  the new tokens of all sequences, one sequence after the other
    /// @param sequences  cached_sequence objects side by side in memory (a vector, an array, a span); their tokens
    ///                   sum to N; no cache twice
    /// @param r          [N, ...]  of all tokens; nothing is allocated when calls of the same sizes repeat, as above.
    ///                   The selection of a sparse block has a list for each token, unless none needs one
    /// @throws error as forward, errc::shape_mismatch if the tokens do not sum up, or a selection is not theirs;
    ///         errc::bad_value for a cache that is missing or given twice; errc::unsupported_architecture for
    ///         compressed attention, whose sequences take forward one by one.
    ///         What is thrown leaves all caches as they were.
    template <class Sequences>
    void forward_batch_into(const matrix_input<T>& x, const Sequences& sequences, attention_result<T>& r,
                            attention_workspace<T>& memory, const forward_options& given) const {
        const std::span list(sequences);
        using sequence = typename decltype(list)::value_type;
        run_batch(x, std::span<const sequence>(list), r, memory, given);
    }
    template <class Sequences>
    void forward_batch_into(const matrix_input<T>& x, const Sequences& sequences, attention_result<T>& r,
                            attention_workspace<T>& memory, executor* threads = nullptr) const {
        forward_batch_into(x, sequences, r, memory, forward_options{.threads = threads});
    }
    template <class Sequences>
    [[nodiscard]] attention_result<T> forward_batch(const matrix_input<T>& x, const Sequences& sequences,
                                                    const forward_options& given) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        forward_batch_into(x, sequences, r, memory, given);
        return r;
    }
    template <class Sequences>
    [[nodiscard]] attention_result<T> forward_batch(const matrix_input<T>& x, const Sequences& sequences,
                                                    executor* threads = nullptr) const {
        return forward_batch(x, sequences, forward_options{.threads = threads});
    }

    /// The first half of a block alone: q, k and v of tokens at any positions, for an engine that keeps and attends to
    /// them itself (several sequences, trees of speculation, pages). The second half is `finish`; between them goes
    /// gqa_attention or its relatives, with `options()`.
    ///
    /// @param x                [T, E]  the block's input after the input norm
    /// @param positions        [T]  in any order, repeats allowed
    /// @param r                gets q, k, v, and of latent form the layout of kv_cache::latent: k is what is cached.
    ///                         Where keys are shared, k and v are empty: attention is to those of the other block
    /// @param sequence_length  that rotation follows, where it does (`dynamic`, `longrope`); 0: up to the last position
    /// @throws error errc::shape_mismatch for another number of positions; errc::unsupported_architecture for sparse
    ///         and compressed attention, which is more than attention over all of these keys, and for the factored form
    ///         of shared latents
    void project_into(const matrix_input<T>& x, std::span<const std::size_t> positions, attention_result<T>& r,
                      attention_workspace<T>& memory, executor* threads = nullptr,
                      std::size_t sequence_length = 0) const;
    [[nodiscard]] attention_result<T> project(const matrix_input<T>& x, std::span<const std::size_t> positions,
                                              executor* threads = nullptr, std::size_t sequence_length = 0) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        project_into(x, positions, r, memory, threads, sequence_length);
        return r;
    }

    /// What gqa_attention is to be told between the halves: scale, window, chunk, soft cap, sinks and slopes. Positions
    /// are the caller's to add. Refers to the layer.
    [[nodiscard]] attention_options options() const noexcept {
        return {.scale = m_spec.scale,
                .softcap = m_spec.softcap,
                .sliding_window = m_spec.sliding_window,
                .chunk = m_spec.chunk,
                .sinks = m_sinks,
                .alibi = m_alibi};
    }

    /// The second half: what each head attended to, through the gate and the output projection.
    ///
    /// @param attended  [T, H, V]; latent form: [T, H, R], the weighted latents
    /// @param x         [T, E]  the block's input, which a gate reads
    /// @param r         gets context and out
    /// @throws error errc::shape_mismatch; errc::unsupported_architecture as project
    void finish_into(const tensor<T, 3>& attended, const matrix_input<T>& x, attention_result<T>& r,
                     attention_workspace<T>& memory, executor* threads = nullptr) const;
    [[nodiscard]] tensor<T, 2> finish(const tensor<T, 3>& attended, const matrix_input<T>& x,
                                      executor* threads = nullptr) const {
        attention_result<T> r;
        attention_workspace<T> memory;
        finish_into(attended, x, r, memory, threads);
        return std::move(r.out);
    }

    /// How many of the oldest tokens of a cache no later token sees, because the window or the chunk has left them
    /// behind: what kv_cache::drop_front may take away. 0 for attention to all.
    template <class Storage>
    [[nodiscard]] std::size_t unneeded(const kv_cache<Storage>& cache) const noexcept {
        if (cache.is_compressed()) return 0;
        const std::size_t first = first_needed(cache.next_position());
        return std::min(first - std::min(first, cache.first_position()), cache.size());
    }

private:
    /// The first position that the token at a position sees.
    [[nodiscard]] std::size_t first_needed(std::size_t position) const noexcept {
        const std::size_t window = m_spec.sliding_window, chunk = m_spec.chunk;
        const std::size_t of_window = window == 0 || position < window ? 0 : position + 1 - window;
        return m_spec.indexer.top_k != 0 ? 0 : std::max(of_window, chunk == 0 ? 0 : position / chunk * chunk);
    }
    /// Refuses a cache that has dropped what the token at a position sees.
    template <class Storage>
    void require_needed(const kv_cache<Storage>& cache, std::size_t position) const;
    /// The position of the first of so many new tokens: where keys are shared, they are in the cache already.
    /// @throws error errc::bad_value if they are not
    template <class Storage>
    [[nodiscard]] std::size_t first_new(const kv_cache<Storage>& cache, std::size_t tokens) const;
    /// Refuses a call that a block with keys and values of its own alone can serve.
    void require_own_keys(const char* call) const;
    /// Refuses attention that is more than attention over keys of each token.
    void require_plain(const char* call, bool in_batch = false) const;
    /// Whether threads of a call's own are worth starting.
    [[nodiscard]] bool worth_threads(std::size_t tokens) const noexcept;
    template <class Storage>
    void run_batch(const matrix_input<T>& x, std::span<const cached_sequence<Storage>> sequences,
                   attention_result<T>& r, attention_workspace<T>& memory, const forward_options& given) const;
    /// Holds the sequences of a batch against each other, the number of rows and a shared selection.
    template <class Storage>
    void require_batch(std::span<const cached_sequence<Storage>> sequences, std::size_t rows,
                       const key_selection* selection) const;
    /// Lists the tokens of a batch.
    /// @return  whether a sequence has more keys than its tokens see
    template <class Storage>
    [[nodiscard]] bool describe_batch(std::span<const cached_sequence<Storage>> sequences,
                                      detail::batch_buffers& lists) const;
    /// Puts what the projections in r made into the caches of a batch.
    /// @param index_keys  [N, 1, Di or 2*Di] of a block with an indexer of its own, or empty
    template <class Storage>
    void append_batch(std::span<const cached_sequence<Storage>> sequences, const tensor<T, 3>& index_keys,
                      const attention_result<T>& r) const;
    /// The selections of a batch by sequence, empty for one that sees all its keys; and of all in r.
    template <class Storage, class Select>
    void select_batch(std::span<const cached_sequence<Storage>> sequences, const Select& select,
                      std::vector<key_selection>& of_sequences, attention_result<T>& r) const;
    /// Attention of a batch whose projections are in r, and whose keys are in the caches.
    template <class Storage>
    void attend_batch(std::span<const cached_sequence<Storage>> sequences, attention_result<T>& r,
                      attention_workspace<T>& memory, const detail::block_projection<T>& project,
                      executor& threads) const;

    [[nodiscard]] kv_cache_shape cache_shape(std::size_t capacity) const;

    template <class Storage>
    void require_own(const kv_cache<Storage>& cache) const;
    /// Holds the cache of the indexer's keys against the block: whether it is wanted, its sizes and its tokens.
    template <class Storage>
    void require_index(const kv_cache<Storage>* index, std::size_t position) const;
    /// Whether keys of the block's indexer have a cache of their own.
    [[nodiscard]] bool keeps_index_apart() const noexcept { return m_spec.kv_layer && m_spec.indexer.own(); }

    void require_width(const matrix_input<T>& x) const;

    /// @param state  null: these tokens alone. It changes after everything is computed, so that what is thrown leaves
    ///               it as it was.
    template <class Storage>
    void run_compressed(const matrix_input<T>& x, detail::compressed_state<Storage>* state, executor* given,
                        attention_result<T>& r) const;

    /// Refuses what only the first call's length would tell.
    /// @param longest  tokens that the sequence had at its longest, those of this call among them
    void require_one_call(std::size_t first_position, std::size_t longest) const;
    /// Holds a given selection against what the block needs.
    void require_selection(const key_selection* given, std::size_t tokens) const;

    /// @param dropped  tokens before those of the cache, positions counted among them
    /// @param append  stores what the projections made, and returns the indexer's keys of all tokens so far
    /// @param attend  fills [T, H, R], the heads' weighted latents, or [T, H*V], their outputs
    /// @param latents  of latent form: writes the rows of all tokens so far, [S, R + P], to a pointer
    template <class Append, class Attend, class Latents>
    void run(const matrix_input<T>& x, std::size_t first_position, std::size_t dropped, const forward_options& given,
             attention_result<T>& r, attention_workspace<T>& memory, Append append, Attend attend,
             Latents latents) const;

    attention_spec m_spec;
    attention_weights<T> m_weights;
    rope_table m_rope;  // where the length does not matter
    std::vector<float> m_sinks;
    std::vector<float> m_alibi;  // slopes of heads
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/attention_layer.hpp>
#endif

#endif
