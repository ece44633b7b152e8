// SPDX-License-Identifier: Apache-2.0
//
// Attention of few query rows, as when decoding: lanes are elements of a head. Keys and values stream from memory
// once, are converted in registers, and meet all rows of the group there.
// Included once per level of vector code; see simd_body.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE {

/// Query rows up to which this form is used; the number of sums that are kept in registers.
inline constexpr std::size_t narrow_rows = lanes < 8 ? lanes : 8;

/// Adds two sets of partial sums: of each pair of segments of 2 * Half lanes, the first half of the result is the
/// folded segment of a, the second half that of b.
template <std::size_t Half, std::size_t... Lane>
LARQL_SIMD_INLINE vfloat fold_pair(vfloat a, vfloat b, std::index_sequence<Lane...>) noexcept {
    constexpr auto low = [](std::size_t lane) {
        const std::size_t segment = lane / (2 * Half) * (2 * Half);
        return static_cast<int>(segment + lane % Half + (lane % (2 * Half) < Half ? 0 : lanes));
    };
    return __builtin_shufflevector(a, b, low(Lane)...) + __builtin_shufflevector(a, b, (low(Lane) + int{Half})...);
}

/// Lane i of the result is the sum of the lanes of sums[i]. Uses up the array.
LARQL_SIMD_INLINE vfloat fold_all(vfloat* sums) noexcept {
    constexpr std::make_index_sequence<lanes> all{};
    if constexpr (lanes == 16) {
        LARQL_UNROLL for (std::size_t i = 0; i < 8; ++i) sums[i] = fold_pair<8>(sums[i], sums[i + 8], all);
    }
    if constexpr (lanes >= 8) {
        LARQL_UNROLL for (std::size_t i = 0; i < 4; ++i) sums[i] = fold_pair<4>(sums[i], sums[i + 4], all);
    }
    LARQL_UNROLL for (std::size_t i = 0; i < 2; ++i) sums[i] = fold_pair<2>(sums[i], sums[i + 2], all);
    return fold_pair<1>(sums[0], sums[1], all);
}

/// Scores of lanes / Rows keys from `key` on against Rows query rows; scores[row * attention_key_block + i].
/// Keys from `end` on are read as the last one and their scores are meaningless.
template <std::size_t Rows, class K>
LARQL_SIMD_FUNCTION void score_few(const attention_rows<const K>& k, std::size_t head, std::size_t key, std::size_t end,
                                   const float* q, std::size_t depth, float* scores) noexcept {
    constexpr std::size_t tile = lanes / Rows;
    const K* row[tile];
    LARQL_UNROLL for (std::size_t j = 0; j < tile; ++j) row[j] = k.row(std::min(key + j, end - 1), head);
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
    store(folded, fold_all(sum));
    LARQL_UNROLL for (std::size_t r = 0; r < Rows; ++r)
        __builtin_memcpy(scores + r * attention_key_block, folded + r * tile, tile * sizeof(float));
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
            const vfloat w = broadcast(weights[r * attention_key_block + j - range.begin]);
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

/// An item whose lanes are elements of a head; Rows >= the rows of the item, of which the rest are zero.
template <std::size_t Rows, class K, class V>
LARQL_SIMD_FUNCTION void attend_narrow(const attention_problem<float, K, V>& p, const attention_plan& plan,
                                       const attention_item& item, float* scratch) noexcept {
    const std::size_t rows = item.row_end - item.row_begin;
    float_arena arena(scratch);
    float* const q = arena.take(Rows * p.key_size);
    float* out = arena.take(Rows * p.value_size);
    float* top = arena.take(Rows);
    float* sum = arena.take(Rows);
    float* const scores = arena.take(Rows * attention_key_block);
    float keep[Rows];
    if (item.partial != nullptr) {
        const attention_partial partial(plan, item.partial);
        out = partial.out;
        top = partial.maximum;
        sum = partial.sum;
    }
    const logit_factors factors = make_logit_factors(p.scale, p.softcap);
    key_range seen[Rows];
    for (std::size_t r = 0; r < Rows; ++r) {
        const std::size_t row = item.row_begin + std::min(r, rows - 1);
        seen[r] = p.mask.visible(row / p.group());
        seen[r].begin = std::clamp(seen[r].begin, item.keys.begin, item.keys.end);
        seen[r].end = std::clamp(seen[r].end, seen[r].begin, item.keys.end);
        const float* from = p.q.row(row / p.group(), item.kv_head * p.group() + row % p.group());
        for (std::size_t d = 0; d < p.key_size; ++d) q[r * p.key_size + d] = from[d] * factors.query;
    }
    std::fill_n(out, Rows * p.value_size, 0.0F);
    std::fill_n(top, Rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, Rows, 0.0F);
    const std::size_t last = seen[rows - 1].end;
    for (std::size_t first = seen[0].begin; first < last; first += attention_key_block) {
        const key_range block{first, std::min(first + attention_key_block, last)};
        const std::size_t n = block.end - block.begin;
        for (std::size_t j = 0; j < n; j += lanes / Rows)
            score_few<Rows>(p.k, item.kv_head, first + j, block.end, q, p.key_size, scores + j);
        bool ragged = false;
        for (std::size_t r = 0; r < Rows; ++r) {
            const std::size_t begin = std::clamp(seen[r].begin, block.begin, block.end) - first;
            const std::size_t end = std::clamp(seen[r].end, first + begin, block.end) - first;
            keep[r] = weigh_row(scores + r * attention_key_block, {begin, end}, n, factors.cap, top[r], sum[r]);
            if (begin > 0 || end < n) ragged = true;
        }
        if (!ragged) {
            add_few_values<Rows>(p.v, item.kv_head, block, p.value_size, scores, keep, out);
            continue;
        }
        // Row by row: a weight of 0 does not silence a NaN that the row does not see.
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t begin = std::clamp(seen[r].begin, block.begin, block.end);
            const std::size_t end = std::clamp(seen[r].end, begin, block.end);
            if (begin < end)
                add_few_values<1>(p.v, item.kv_head, {begin, end}, p.value_size,
                                  scores + r * attention_key_block + begin - first, keep + r, out + r * p.value_size);
        }
    }
    if (item.partial == nullptr) finish_rows(p, item, out, p.value_size, top, sum);
}

/// One item in the form that the plan chose.
template <class K, class V>
LARQL_SIMD_FUNCTION void attend_item(const attention_problem<float, K, V>& p, const attention_plan& plan,
                                     const attention_item& item, float* scratch) noexcept {
    if (!plan.narrow) {
        if (plan.panel_rows == lanes) return attend_wide<1>(p, plan, item, scratch);
        return attend_wide<2>(p, plan, item, scratch);
    }
    const std::size_t rows = item.row_end - item.row_begin;
    if (rows == 1) return attend_narrow<1>(p, plan, item, scratch);
    if (rows == 2) return attend_narrow<2>(p, plan, item, scratch);
    if (rows <= 4) return attend_narrow<4>(p, plan, item, scratch);
    if constexpr (narrow_rows == 8) return attend_narrow<8>(p, plan, item, scratch);
}

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE

#endif
