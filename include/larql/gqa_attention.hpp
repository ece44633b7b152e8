// SPDX-License-Identifier: Apache-2.0
//
// Scaled dot-product attention of H query heads over G shared key/value heads: plain multi-head (G = H), grouped, and
// multi-query (G = 1) attention, key and value heads of unequal size, and the latent form of MLA whose values are a
// prefix of the keys. Scores are never stored whole: keys are taken in blocks with a running softmax (arXiv
// 2205.14135), so memory beyond the result is O(block) per thread.
//
// Sizes: T new tokens, S keys, H query heads, G key/value heads, D key size, V value size.
#ifndef LARQL_GQA_ATTENTION_HPP
#define LARQL_GQA_ATTENTION_HPP

#include <larql/detail/attention/blocked.hpp>
#include <larql/detail/attention/listed.hpp>
#include <larql/detail/attention/operand.hpp>
#include <larql/detail/attention/problem.hpp>
#include <larql/detail/attention/score_factors.hpp>
#include <larql/detail/attention/weights.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/cpu.hpp>
#include <larql/detail/ggml/quantize.hpp>
#include <larql/detail/xtensor.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/key_selection.hpp>
#include <larql/rows_view.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace larql {

/// What gqa_attention computes beyond its three tensors. Set fields by name: `{.num_q_heads = 32, .scale = s}`.
struct attention_options {
    std::size_t num_q_heads = 0;    ///< H; needed when q has 2 dimensions, else checked unless 0
    std::size_t num_kv_heads = 0;   ///< G; needed when k or v has 2 dimensions, else checked unless 0
    std::optional<double> scale{};  ///< multiplies q.k before everything else, of either sign or 0; default 1/sqrt(D)
    bool causal = true;             ///< a token sees no key after its own position
    /// Position of q's row 0, in tokens from 0: row t has position p = first_position + t, and sees keys 0..p when
    /// causal (all keys when there are fewer). Default S - T: the last row sees the last key, and when T > S the first
    /// rows see nothing.
    std::optional<std::size_t> first_position{};
    /// Position of k's row 0, so that row j is at first_key_position + j: more than 0 where older keys are not among
    /// them, dropped as a window allows, or seen in another part. first_position is then to be given.
    std::size_t first_key_position = 0;
    double softcap = 0;              ///< scores become softcap * tanh(score / softcap); 0 = off
    std::size_t sliding_window = 0;  ///< the token at p sees key j only if p - j < sliding_window; 0 = off
    std::size_t chunk = 0;           ///< the token at p sees key j only if p / chunk == j / chunk; 0 = off
    /// One logit per query head that takes part in the softmax and has no value; empty = none. Not scaled or capped.
    std::span<const float> sinks{};
    /// One slope per query head: the score of key j for the token at p gets slope * (j - p), not scaled or capped
    /// (ALiBi); empty = none. Not together with key_lists.
    std::span<const float> alibi{};
    /// One list of keys for each token, of those that it may see beside what `causal` and the window allow: all of its
    /// heads share it. Empty = all. Keys in no list are never read.
    key_list_view key_lists{};
    /// Which of some keys each token may see, as bits, of those that the rules above let it see: set `causal = false`
    /// where a token may see later ones. All its heads share them. Keys that no token may see are not attended to,
    /// whatever they hold. Not together with key_lists.
    key_mask_view key_mask{};
    executor* threads = nullptr;  ///< null: threads of the call's own when the work is worth starting them
};

/// Working memory that calls can share, so that a decode loop allocates nothing. Grows to the largest call; holds
/// nothing between calls. One call at a time.
class attention_scratch {
public:
    [[nodiscard]] std::size_t size_bytes() const noexcept {
        std::size_t bytes = m_memory.size_bytes();
        bytes += m_calls.capacity() * sizeof(detail::blocked_call);
        for (const detail::listed_memory& worker : m_listed)
            bytes += worker.k.size_bytes() + worker.v.size_bytes() + worker.kernels.size_bytes();
        return bytes;
    }
    [[nodiscard]] detail::aligned_buffer& memory() noexcept { return m_memory; }
    [[nodiscard]] std::vector<detail::listed_memory>& listed() noexcept { return m_listed; }
    [[nodiscard]] std::vector<detail::blocked_call>& calls() noexcept { return m_calls; }

private:
    detail::aligned_buffer m_memory{};
    std::vector<detail::listed_memory> m_listed{};  // of each worker, for calls with key lists
    std::vector<detail::blocked_call> m_calls{};    // of a batch
};

/// Attention together with the weights of the softmax.
template <class T, std::size_t Rank>
struct attention_with_weights {
    tensor<T, 3> output;      ///< [T, H, V]
    tensor<T, Rank> weights;  ///< of every token [H, T, S], or of the last one [H, S]; sinks left out
};

namespace detail {

struct attention_shapes {
    operand_shape q, k, v;
};

inline void check_key_mask(const attention_options& options, std::size_t tokens, std::size_t keys) {
    const key_mask_view& mask = options.key_mask;
    if (mask.empty()) return;
    if (!options.key_lists.empty()) fail(errc::bad_value, "is given together with key_lists", {.subject = "key_mask"});
    if (mask.first_key > keys || mask.keys > keys - mask.first_key)
        fail(errc::shape_mismatch,
             concat({"has bits of ", mask.keys, " keys from ", mask.first_key, " on, there are ", keys}),
             {.subject = "key_mask"});
    if (mask.bits.size() / mask.words() != tokens || mask.bits.size() % mask.words() != 0)
        fail(errc::shape_mismatch,
             concat({mask.bits.size(), " words, expected ", mask.words(), " for each of ", tokens, " tokens"}),
             {.subject = "key_mask"});
}

inline void check_attention_shapes(const attention_shapes& s, const attention_options& options) {
    const auto disagree = [](const char* subject, const std::string& problem) {
        fail(errc::shape_mismatch, problem, {.subject = subject});
    };
    if (s.k.size != s.q.size) disagree("k", concat({"head size ", s.k.size, ", q has ", s.q.size}));
    if (s.v.tokens != s.k.tokens) disagree("v", concat({s.v.tokens, " tokens, k has ", s.k.tokens}));
    if (s.v.heads != s.k.heads) disagree("v", concat({s.v.heads, " heads, k has ", s.k.heads}));
    if (s.k.heads == 0 ? s.q.heads != 0 : s.q.heads % s.k.heads != 0)
        disagree("q", concat({s.q.heads, " heads are not a multiple of the ", s.k.heads, " key/value heads"}));
    if (!options.sinks.empty() && options.sinks.size() != s.q.heads)
        disagree("sinks", concat({options.sinks.size(), " logits, q has ", s.q.heads, " heads"}));
    if (!options.alibi.empty() && options.alibi.size() != s.q.heads)
        disagree("alibi", concat({options.alibi.size(), " slopes, q has ", s.q.heads, " heads"}));
    if (!options.alibi.empty() && !options.key_lists.empty())
        fail(errc::bad_value, "is given together with key_lists", {.subject = "alibi"});
    if (options.first_key_position != 0 && !options.first_position)
        fail(errc::bad_value, "is given without first_position", {.subject = "first_key_position"});
    check_key_lists(options.key_lists, s.q.tokens, s.k.tokens);
    check_key_mask(options, s.q.tokens, s.k.tokens);
}

template <class Q, class K, class V>
attention_shapes read_attention_shapes(const Q& q, const K& k, const V& v, const attention_options& options) {
    static_assert(is_attention_element<attention_element_t<Q>> && is_attention_element<attention_element_t<K>> &&
                      is_attention_element<attention_element_t<V>>,
                  "larql: q, k and v must hold float, double, larql::bf16, larql::f16, larql::f8_e4m3 "
                  "or larql::q8_0_block");
    static_assert(!is_block<attention_element_t<Q>>, "larql: q does not come in blocks");
    const attention_shapes shapes{read_operand_shape(q.shape(), options.num_q_heads, "q", "num_q_heads"),
                                  read_operand_shape(k.shape(), options.num_kv_heads, "k", "num_kv_heads"),
                                  read_operand_shape(v.shape(), options.num_kv_heads, "v", "num_kv_heads")};
    check_attention_shapes(shapes, options);
    return shapes;
}

inline attention_mask make_attention_mask(const attention_shapes& s, const attention_options& options) {
    // Beyond any tensor, and safe to add to.
    constexpr auto far = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max() / 4);
    attention_mask mask;
    mask.keys = s.k.tokens;
    mask.causal = options.causal;
    mask.window = static_cast<std::ptrdiff_t>(std::min(options.sliding_window, far));
    mask.chunk = static_cast<std::ptrdiff_t>(std::min(options.chunk, far));
    mask.before = static_cast<std::ptrdiff_t>(std::min(options.first_key_position, far));
    mask.first = options.first_position
                     ? static_cast<std::ptrdiff_t>(std::min(*options.first_position, far)) - mask.before
                     : static_cast<std::ptrdiff_t>(s.k.tokens) - static_cast<std::ptrdiff_t>(s.q.tokens);
    return mask;
}

/// A problem of checked shapes, without its result.
template <class T, class K, class V>
attention_problem<T, K, V> make_attention_problem(const attention_rows<const T>& q, const attention_rows<const K>& k,
                                                  const attention_rows<const V>& v, const attention_shapes& shapes,
                                                  const attention_options& options) {
    attention_problem<T, K, V> p;
    p.q = q;
    p.k = k;
    p.v = v;
    p.tokens = shapes.q.tokens;
    p.keys = shapes.k.tokens;
    p.heads = shapes.q.heads;
    p.kv_heads = shapes.k.heads;
    p.key_size = shapes.q.size;
    p.value_size = shapes.v.size;
    p.mask = make_attention_mask(shapes, options);
    p.lists = options.key_lists;
    p.bits = options.key_mask;
    p.scale = options.scale.value_or(p.key_size == 0 ? 1.0 : 1.0 / std::sqrt(static_cast<double>(p.key_size)));
    p.softcap = options.softcap;
    check_score_factors<T>(p.scale, p.softcap);
    p.sinks = options.sinks.empty() ? nullptr : options.sinks.data();
    p.alibi = options.alibi.empty() ? nullptr : options.alibi.data();
    if constexpr (std::is_same_v<K, V>)
        p.v_is_k = p.v.data == p.k.data && p.v.token_stride == p.k.token_stride && p.v.pages == p.k.pages &&
                   (p.v.head_stride == p.k.head_stride || p.kv_heads == 1) && p.value_size <= p.key_size;
    return p;
}

/// Multiplications and additions from which threads of a call's own are worth starting: about a millisecond on one
/// core, ten times what starting them takes.
inline constexpr double attention_worth_threads = 5e7;

/// Calls `use(problem, executor)` on the checked operands in memory. float arithmetic never meets double storage;
/// double arithmetic reads any.
template <class T, class Q, class K, class V, class F>
void with_attention_problem(const Q& q, const K& k, const V& v, const attention_shapes& shapes,
                            const attention_options& options, F&& use) {
    const attention_operand<T> q_rows(q, shapes.q, "q");
    const attention_operand<attention_element_t<K>> k_rows(k, shapes.k, "k");
    const attention_operand<attention_element_t<V>> v_rows(v, shapes.v, "v");
    auto p = make_attention_problem<T, attention_element_t<K>, attention_element_t<V>>(q_rows.rows(), k_rows.rows(),
                                                                                       v_rows.rows(), shapes, options);
    if (p.tokens == 0 || p.heads == 0) return;
    with_executor(options.threads, p.flops() > attention_worth_threads, [&](executor& threads) { use(p, threads); });
}

/// Where a call leaves its results, in memory.
template <class T>
struct attention_output {
    attention_rows<T> rows{};
    narrowed_rows narrowed{};  // instead of rows, if it has data
    T* log_sum = nullptr;      // [T, H], or null

    attention_output(const attention_rows<T>& out, T* sums = nullptr) noexcept  // NOLINT: the rows alone
        : rows(out), log_sum(sums) {}
    explicit attention_output(const narrowed_rows& out) noexcept : narrowed(out) {}
};

/// Fills `out`.
template <class T, class Q, class K, class V>
void attend(const Q& q, const K& k, const V& v, const attention_shapes& shapes, const attention_options& options,
            const attention_output<T>& out, attention_scratch& scratch, simd_level level = active_simd_level()) {
    if (shapes.v.size == 0 && out.log_sum == nullptr) return;
    with_attention_problem<T>(q, k, v, shapes, options, [&](auto& problem, executor& threads) {
        problem.out = out.rows;
        problem.narrowed = out.narrowed;
        problem.log_sum = out.log_sum;
        if (problem.lists.empty())
            run_attention(problem, level, threads, scratch.memory());
        else
            attend_listed(problem, level, threads, scratch.memory(), scratch.listed());
    });
}

template <class T, class Q, class K, class V>
tensor<T, 3> attend_to_tensor(const Q& q, const K& k, const V& v, const attention_shapes& shapes,
                              const attention_options& options, attention_scratch& scratch,
                              simd_level level = active_simd_level(), T* log_sum = nullptr) {
    tensor<T, 3> out(typename tensor<T, 3>::shape_type{shapes.q.tokens, shapes.q.heads, shapes.v.size});
    const attention_rows<T> rows{out.data(),
                                 static_cast<std::ptrdiff_t>(shapes.q.heads * shapes.v.size),
                                 static_cast<std::ptrdiff_t>(shapes.v.size),
                                 {}};
    attend<T>(q, k, v, shapes, options, {rows, log_sum}, scratch, level);
    return out;
}

/// Rows of half-precision numbers as where results go, rounded once.
template <class E>
narrowed_rows make_narrowed_rows(const attention_rows<E>& rows) noexcept {
    static_assert(std::is_same_v<E, bf16> || std::is_same_v<E, f16>);
    constexpr auto bytes = static_cast<std::ptrdiff_t>(sizeof(E));
    return {reinterpret_cast<std::byte*>(rows.data), rows.token_stride * bytes, rows.head_stride * bytes,
            [](const float* from, std::byte* to, std::size_t n) {
                (std::is_same_v<E, f16> ? narrow_f16 : narrow_bf16)(from, to, n, active_simd_level());
            }};
}

}  // namespace detail

/// Attends H query heads over G shared key/value heads of the same or another value size; G divides H.
///
/// Query head h reads key/value head h / (H / G). Any xtensor expression will do: containers, views and transposed
/// views of any strides (a head-major cache [G, S, D] seen as [S, G, D]), xt::adapt over an engine's memory, and lazy
/// arithmetic, which is evaluated once; and a rows_view, a pointer with strides, also of keys and values in pages. A
/// last dimension that is contiguous is read in place. V may be a view of K's
/// memory (the latent form: K [S, 1, R + P], V its first R columns); it is then read once.
///
/// @param q  [T, H, D]  queries, rope already applied; or [T, H * D] with options.num_q_heads
/// @param k  [S, G, D]  keys, rope already applied, row s is position s; or [S, G * D] with options.num_kv_heads.
///                      float, bf16, f16, f8_e4m3, or double; q8_0_block in a rows_view
/// @param v  [S, G, V]  values, likewise
/// @return   [T, H, V]  new row-major tensor; double if any input is double, else float. Rows that may see no key
///                      (S = 0 included) are zero
/// @throws error errc::shape_mismatch if S, G or D disagree, H is not a multiple of G, or key_lists has another number
///         of lists than T or a key beyond S; errc::bad_value for a list that does not ascend, and for a scale, softcap
///         or their quotient that is not finite or not well within the range of the arithmetic
/// @note   The row maximum is subtracted before exp; arithmetic is float (double for double). NaN and infinity stay
///         within the rows that see them. Finite numbers give finite ones while scores and S times the largest value
///         are within that range; with a scale of 0 all keys weigh the same. O(T*S*H*(D+V)) time, O(block) scratch per
///         thread. With key lists, S is their length, and each thread holds the keys and values of one list and head.
/// @source arXiv 2305.13245 section 2.2 (grouped queries), 2205.14135 (running softmax)
template <class Q, class K, class V>
auto gqa_attention_asym(const Q& q, const K& k, const V& v, const attention_options& options = {})
    -> tensor<detail::attention_compute_t<Q, K, V>, 3> {
    attention_scratch scratch;
    return detail::attend_to_tensor<detail::attention_compute_t<Q, K, V>>(
        q, k, v, detail::read_attention_shapes(q, k, v, options), options, scratch);
}

/// gqa_attention_asym for values of the same size as keys (V = D), as in plain multi-head attention.
///
/// @throws error errc::shape_mismatch also if V != D; the call for that is gqa_attention_asym
template <class Q, class K, class V>
auto gqa_attention(const Q& q, const K& k, const V& v, const attention_options& options = {})
    -> tensor<detail::attention_compute_t<Q, K, V>, 3> {
    const detail::attention_shapes shapes = detail::read_attention_shapes(q, k, v, options);
    if (shapes.v.size != shapes.k.size)
        detail::fail(errc::shape_mismatch,
                     detail::concat({"value head size ", shapes.v.size, ", key head size ", shapes.k.size,
                                     "; gqa_attention_asym takes unequal sizes"}),
                     {.subject = "v"});
    attention_scratch scratch;
    return detail::attend_to_tensor<detail::attention_compute_t<Q, K, V>>(q, k, v, shapes, options, scratch);
}

/// gqa_attention_asym into memory of the caller's: no allocation once `scratch` has grown (nor any copy, if every
/// tensor's last dimension is contiguous).
///
/// @param out      [T, H, V] or [T, H * V]  any assignable expression (container, view, xt::adapt), or a rows_view; of
///                 bf16 or f16, a row is rounded when it is finished; must not share memory with q, k or v
/// @param scratch  reused from call to call; one call at a time
/// @throws error errc::shape_mismatch also if out has another shape
template <class Q, class K, class V, class Out>
void gqa_attention_into(const Q& q, const K& k, const V& v, Out&& out, const attention_options& options,
                        attention_scratch& scratch) {
    using compute = detail::attention_compute_t<Q, K, V>;
    const detail::attention_shapes shapes = detail::read_attention_shapes(q, k, v, options);
    const detail::operand_shape got = detail::read_operand_shape(out.shape(), shapes.q.heads, "out", "q");
    const detail::operand_shape want{shapes.q.tokens, shapes.q.heads, shapes.v.size};
    if (got.tokens != want.tokens || got.size != want.size)
        detail::fail(errc::shape_mismatch, "shape " + to_string(got) + ", expected " + to_string(want),
                     {.subject = "out"});
    using element = detail::attention_element_t<Out>;
    constexpr bool halves =
        std::is_same_v<compute, float> && (std::is_same_v<element, bf16> || std::is_same_v<element, f16>);
    if constexpr (detail::has_rows_in_memory<Out> && (halves || std::is_same_v<element, compute>)) {
        if (const auto rows = detail::find_rows(out, got)) {
            if constexpr (halves)
                return detail::attend<compute>(q, k, v, shapes, options,
                                               detail::attention_output<compute>(detail::make_narrowed_rows(*rows)),
                                               scratch);
            else
                return detail::attend<compute>(q, k, v, shapes, options, *rows, scratch);
        }
    }
    static_assert(!detail::is_rows_view<std::decay_t<Out>> || halves || std::is_same_v<element, compute>,
                  "larql: results go to a view of the arithmetic's type, or of bf16 or f16 where that is float");
    if constexpr (!detail::is_rows_view<std::decay_t<Out>>) {
        auto result = detail::attend_to_tensor<compute>(q, k, v, shapes, options, scratch);
        const std::vector<std::size_t> shape(out.shape().begin(), out.shape().end());
        out = xt::cast<element>(xt::adapt(result.data(), result.size(), xt::no_ownership(), shape));
    }
}

/// As above with scratch memory of its own.
template <class Q, class K, class V, class Out>
void gqa_attention_into(const Q& q, const K& k, const V& v, Out&& out, const attention_options& options = {}) {
    attention_scratch scratch;
    gqa_attention_into(q, k, v, out, options, scratch);
}

/// gqa_attention_asym with the softmax weights of every token: an instrument for looking at a model, not for speed.
///
/// @return output [T, H, V] as gqa_attention_asym, and weights [H, T, S]; a row sums to 1 (less what its sink takes),
///         and is 0 where a key is not visible
template <class Q, class K, class V>
auto gqa_attention_with_weights(const Q& q, const K& k, const V& v, const attention_options& options = {})
    -> attention_with_weights<detail::attention_compute_t<Q, K, V>, 3> {
    using compute = detail::attention_compute_t<Q, K, V>;
    const detail::attention_shapes shapes = detail::read_attention_shapes(q, k, v, options);
    tensor<compute, 3> weights({shapes.q.heads, shapes.q.tokens, shapes.k.tokens});
    detail::with_attention_problem<compute>(q, k, v, shapes, options, [&](auto& problem, executor& threads) {
        detail::softmax_weights(problem, 0, threads, weights.data());
    });
    return {gqa_attention_asym(q, k, v, options), std::move(weights)};
}

/// gqa_attention_asym with the softmax weights of the last token only.
///
/// @return output [T, H, V] as gqa_attention_asym, and weights [H, S] (zero if T = 0)
template <class Q, class K, class V>
auto gqa_attention_with_last_weights(const Q& q, const K& k, const V& v, const attention_options& options = {})
    -> attention_with_weights<detail::attention_compute_t<Q, K, V>, 2> {
    using compute = detail::attention_compute_t<Q, K, V>;
    const detail::attention_shapes shapes = detail::read_attention_shapes(q, k, v, options);
    tensor<compute, 2> weights({shapes.q.heads, shapes.k.tokens}, compute(0));
    detail::with_attention_problem<compute>(q, k, v, shapes, options, [&](auto& problem, executor& threads) {
        detail::softmax_weights(problem, problem.tokens - 1, threads, weights.data());
    });
    return {gqa_attention_asym(q, k, v, options), std::move(weights)};
}

}  // namespace larql

#endif
