// SPDX-License-Identifier: Apache-2.0
//
// Attention of few query rows, as when decoding: lanes are elements of a head. Keys and values stream from memory
// once, are converted in registers, and meet all rows of the group there.
// Included once per level of vector code; see simd_body.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE {

/// Query rows up to which this form is used; the number of sums that are kept in registers.
inline constexpr std::size_t narrow_rows = lanes < 8 ? lanes : 8;

/// Asks for a row ahead of its use: rows of one head lie far apart in a cache of many heads, where the processor's own
/// prefetching does not follow.
template <class E>
LARQL_SIMD_INLINE void prefetch_row(const E* row, std::size_t columns) noexcept {
    const char* const bytes = reinterpret_cast<const char*>(row);
    for (std::size_t b = 0; b < columns * sizeof(E); b += 64) __builtin_prefetch(bytes + b, 0, 2);
}

/// A stretch of keys of one head, and the stretch that will be worked on soon after.
struct narrow_block {
    std::size_t head;
    key_range keys;
    std::size_t next_head;
    key_range next_keys;
};

/// Scores of lanes / Rows keys from `key` on against Rows query rows; scores[row * narrow_key_block + i].
/// Keys beyond the block are read as its last one and their scores are meaningless.
template <std::size_t Rows, class K>
LARQL_SIMD_FUNCTION void score_few(const attention_rows<const K>& k, const narrow_block& block, std::size_t key,
                                   const float* q, std::size_t depth, float* scores) noexcept {
    constexpr std::size_t tile = lanes / Rows;
    const K* row[tile];
    LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) {
        row[j] = k.row(std::min(key + j, block.keys.end - 1), block.head);
        prefetch_row(k.row(std::min(key - block.keys.begin + block.next_keys.begin + j, block.next_keys.end - 1),
                           block.next_head),
                     depth);
    }
    vfloat sum[lanes];
    LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) sum[i] = vfloat{};
    for (std::size_t d = 0; d < depth; d += lanes) {
        vfloat x[Rows];
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) x[r] = load(q + r * depth + d);
        LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) {
            const vfloat y = load(row[j] + d);
            LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) sum[r * tile + j] += x[r] * y;
        }
    }
    float folded[lanes];
    store(folded, fold_lanes(sum));
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r)
        __builtin_memcpy(scores + r * narrow_key_block, folded + r * tile, tile * sizeof(float));
}

/// out[r][.] = out[r][.] * keep[r] + sum over keys of weights[r][key] * values[key][.] for Vectors vectors from
/// column `c` on. weights start at key range.begin.
template <std::size_t Rows, std::size_t Vectors, class V>
LARQL_SIMD_FUNCTION void add_few_values(const attention_rows<const V>& v, std::size_t head, key_range range,
                                        std::size_t c, const float* weights, const float* keep, float* out,
                                        std::size_t out_stride) noexcept {
    vfloat sum[Rows][Vectors];
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        const vfloat factor = broadcast(keep[r]);
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] =
            load(out + r * out_stride + c + i * lanes) * factor;
    }
    const V* row = v.row(range.begin, head) + c;
    for (std::size_t j = range.begin; j < range.end; ++j, row += v.token_stride) {
        vfloat y[Vectors];
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) y[i] = load(row + i * lanes);
        LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
            const vfloat w = broadcast(weights[r * narrow_key_block + j - range.begin]);
            LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) sum[r][i] += w * y[i];
        }
    }
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r) {
        LARQL_UNROLL for (std::size_t i = 0; i < Vectors; ++i) store(out + r * out_stride + c + i * lanes, sum[r][i]);
    }
}

/// All columns of add_few_values.
template <std::size_t Rows, class V>
LARQL_SIMD_FUNCTION void add_few_values(const attention_rows<const V>& v, std::size_t head, key_range range,
                                        std::size_t columns, const float* weights, const float* keep,
                                        float* out) noexcept {
    constexpr std::size_t sums = LARQL_SIMD_BYTES == 64 ? 16 : 8;
    constexpr std::size_t most = std::max<std::size_t>(1, std::min<std::size_t>(8, sums / Rows));
    std::size_t c = 0;
    for (; c + most * lanes <= columns; c += most * lanes)
        add_few_values<Rows, most>(v, head, range, c, weights, keep, out, columns);
    for (; c < columns; c += lanes) add_few_values<Rows, 1>(v, head, range, c, weights, keep, out, columns);
}

/// Scores of one row become weights relative to its new maximum. Lanes beyond the row's keys become 0.
/// @return the factor for what was relative to the old maximum
LARQL_SIMD_FUNCTION inline float weigh_row(float* scores, key_range seen, std::size_t keys, float cap,
                                           float& running_maximum, float& running_sum) noexcept {
    const float hidden = -std::numeric_limits<float>::infinity();
    const std::size_t padded = round_up(keys, lanes);
    if (cap > 0)
        for (std::size_t j = 0; j < padded; j += lanes) store(scores + j, tanh(load(scores + j)) * cap);
    std::fill(scores, scores + seen.begin, hidden);
    std::fill(scores + seen.end, scores + padded, hidden);
    vfloat top = broadcast(running_maximum);
    for (std::size_t j = 0; j < padded; j += lanes) top = maximum(load(scores + j), top);
    const float after = max_lanes(top);
    const vfloat base = broadcast(after == hidden ? 0.0F : after);
    vfloat sum{};
    for (std::size_t j = 0; j < padded; j += lanes) {
        const vfloat weight = exp2_negative(load(scores + j) - base);
        store(scores + j, weight);
        sum += weight;
    }
    const float factor = exp2_negative(broadcast(running_maximum) - base)[0];
    running_maximum = after;
    running_sum = running_sum * factor + sum_lanes(sum);
    return factor;
}

/// The query rows of one head and what they have accumulated.
struct narrow_state {
    float* q;        // [Rows][D], times the scale
    float* out;      // [Rows][V]
    float* maximum;  // [Rows], in powers of two
    float* sum;
};

/// The kernels for one number of rows.
template <class K, class V>
struct narrow_kernels {
    std::size_t rows;
    void (*score)(const attention_rows<const K>&, const narrow_block&, std::size_t key, const float* q,
                  std::size_t depth, float* scores) noexcept;
    void (*add)(const attention_rows<const V>&, std::size_t head, key_range, std::size_t columns, const float* weights,
                const float* keep, float* out) noexcept;
    void (*add_one)(const attention_rows<const V>&, std::size_t head, key_range, std::size_t columns,
                    const float* weights, const float* keep, float* out) noexcept;
};

template <std::size_t Rows, class K, class V>
narrow_kernels<K, V> make_narrow_kernels() noexcept {
    return {Rows, score_few<Rows, K>, add_few_values<Rows, V>, add_few_values<1, V>};
}

/// Kernels for at least `rows` rows.
template <class K, class V>
narrow_kernels<K, V> choose_narrow_kernels(std::size_t rows) noexcept {
    if (rows == 1) return make_narrow_kernels<1, K, V>();
    if (rows == 2) return make_narrow_kernels<2, K, V>();
    if (rows <= 4) return make_narrow_kernels<4, K, V>();
    return make_narrow_kernels<narrow_rows, K, V>();
}

/// One block of keys. `seen` are the keys of each row, `rows` of which are real.
template <class K, class V>
LARQL_SIMD_FUNCTION void attend_few(const attention_problem<float, K, V>& p, const narrow_kernels<K, V>& kernels,
                                    const narrow_block& block, const narrow_state& state, float* scores,
                                    const key_range* seen, std::size_t rows, float cap) noexcept {
    const std::size_t first = block.keys.begin;
    const std::size_t n = block.keys.end - first;
    for (std::size_t j = 0; j < n; j += lanes / kernels.rows)
        kernels.score(p.k, block, first + j, state.q, p.key_size, scores + j);
    float keep[narrow_rows];
    bool ragged = false;
    for (std::size_t r = 0; r < kernels.rows; ++r) {
        const std::size_t begin = std::clamp(seen[r].begin, first, block.keys.end) - first;
        const std::size_t end = std::clamp(seen[r].end, first + begin, block.keys.end) - first;
        keep[r] = weigh_row(scores + r * narrow_key_block, {begin, end}, n, cap, state.maximum[r], state.sum[r]);
        if (begin > 0 || end < n) ragged = true;
    }
    for (std::size_t j = block.next_keys.begin; j < block.next_keys.end; ++j)
        prefetch_row(p.v.row(j, block.next_head), p.value_size);
    if (!ragged) return kernels.add(p.v, block.head, block.keys, p.value_size, scores, keep, state.out);
    // Row by row: a weight of 0 does not silence a NaN that the row does not see.
    for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t begin = std::clamp(seen[r].begin, first, block.keys.end);
        const std::size_t end = std::clamp(seen[r].end, begin, block.keys.end);
        if (begin < end)
            kernels.add_one(p.v, block.head, {begin, end}, p.value_size, scores + r * narrow_key_block + begin - first,
                            keep + r, state.out + r * p.value_size);
    }
}

/// Memory and first values for the rows of one head; rows beyond the item's last repeat it.
inline narrow_state start_narrow(const attention_call<float>& p, const attention_plan& plan, const attention_item& item,
                                 std::size_t head, std::size_t rows, float factor, float_arena& arena) noexcept {
    narrow_state state{arena.take(rows * p.key_size), arena.take(rows * p.value_size), arena.take(rows),
                       arena.take(rows)};
    if (item.partial != nullptr) {
        const std::size_t offset = (head - item.head_begin) * plan.splits * plan.partial_floats;
        const attention_partial partial(plan, item.partial + offset);
        state.out = partial.out;
        state.maximum = partial.maximum;
        state.sum = partial.sum;
    }
    for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t row = std::min(item.row_begin + r, item.row_end - 1);
        const float* from = p.q.row(row / p.group(), head * p.group() + row % p.group());
        for (std::size_t d = 0; d < p.key_size; ++d) state.q[r * p.key_size + d] = from[d] * factor;
    }
    std::fill_n(state.out, rows * p.value_size, 0.0F);
    std::fill_n(state.maximum, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(state.sum, rows, 0.0F);
    return state;
}

/// An item whose lanes are elements of a head. Heads take turns at each block of keys, so that memory is read in the
/// order in which a cache [S, G, D] lies.
template <class K, class V>
LARQL_SIMD_FUNCTION void attend_narrow(const attention_problem<float, K, V>& p, const attention_plan& plan,
                                       const attention_item& item, float* scratch) noexcept {
    const std::size_t rows = item.row_end - item.row_begin;
    const std::size_t heads = item.head_end - item.head_begin;
    const narrow_kernels<K, V> kernels = choose_narrow_kernels<K, V>(rows);
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    float_arena arena(scratch);
    float* const scores = arena.take(kernels.rows * narrow_key_block);
    key_range seen[narrow_rows];
    for (std::size_t r = 0; r < kernels.rows; ++r) {
        seen[r] = p.mask.visible(std::min(item.row_begin + r, item.row_end - 1) / p.group());
        seen[r].begin = std::clamp(seen[r].begin, item.keys.begin, item.keys.end);
        seen[r].end = std::clamp(seen[r].end, seen[r].begin, item.keys.end);
    }
    narrow_state states[narrow_heads];
    for (std::size_t h = 0; h < heads; ++h)
        states[h] = start_narrow(p, plan, item, item.head_begin + h, kernels.rows, factors.query, arena);

    const std::size_t last = seen[rows - 1].end;
    const std::size_t step = plan.narrow_step;
    for (std::size_t first = seen[0].begin; first < last; first += step) {
        const key_range keys{first, std::min(first + step, last)};
        const key_range next{std::min(first + step, last - 1), std::min(first + 2 * step, last)};
        for (std::size_t h = 0; h < heads; ++h) {
            const std::size_t ahead = h + plan.prefetch_heads;
            const narrow_block block{item.head_begin + h, keys, item.head_begin + ahead % heads,
                                     ahead < heads ? keys : next};
            attend_few(p, kernels, block, states[h], scores, seen, rows, factors.cap);
        }
    }
    for (std::size_t h = 0; item.partial == nullptr && h < heads; ++h)
        finish_rows(p, item, item.head_begin + h, states[h].out, p.value_size, states[h].maximum, states[h].sum);
}

/// One item in the form that the plan chose.
template <class K, class V>
LARQL_SIMD_FUNCTION void attend_item(const attention_problem<float, K, V>& p, const attention_plan& plan,
                                     const attention_item& item, float* scratch) noexcept {
    return plan.narrow ? attend_narrow(p, plan, item, scratch) : attend_wide(p, plan, item, scratch);
}

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE

#endif
