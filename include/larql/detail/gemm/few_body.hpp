// SPDX-License-Identifier: Apache-2.0
//
// Kernels for few rows of activations: lanes are columns of the weight. A row's sum with a token goes through the
// columns in one order, however many rows and tokens are worked on at once, so that the bits of a result do not depend
// on the others. Included once per level of vector code by gemm/few_kernels.hpp; see simd_levels.hpp.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE::few {

using LARQL_SIMD_NAMESPACE::load;  // which is overloaded here

/// `lanes` bytes as 16 bits each.
LARQL_SIMD_INLINE vhalf load_bytes(const void* p) noexcept {
#if LARQL_SIMD_BYTES == 64 && !defined(__clang__)  // GCC 12 widens byte by byte
    typedef char bytes __attribute__((vector_size(16)));
    bytes from;
    __builtin_memcpy(&from, p, sizeof from);
    return reinterpret_cast<vhalf>(__builtin_ia32_pmovzxbw256(from));
#elif LARQL_SIMD_BYTES == 32 && !defined(__clang__)
    typedef char bytes __attribute__((vector_size(16)));
    std::int64_t eight;
    __builtin_memcpy(&eight, p, sizeof eight);
    typedef long long words __attribute__((vector_size(16)));
    return reinterpret_cast<vhalf>(__builtin_ia32_pmovzxbw128(reinterpret_cast<bytes>(words{eight, 0})));
#else
    typedef std::uint8_t bytes __attribute__((vector_size(lanes)));
    bytes from;
    __builtin_memcpy(&from, p, sizeof from);
    return __builtin_convertvector(from, vhalf);
#endif
}

/// As f16 bits an E4M3 number is 2^-8 of its value, subnormals included.
LARQL_SIMD_INLINE vfloat load(const e4m3_bits* p) noexcept {
    const vhalf wide = load_bytes(p);
    const vhalf magnitude = wide & 0x7f;
    const vhalf nan = reinterpret_cast<vhalf>(magnitude == 0x7f) & 0x7e00;
    return from_f16_bits((wide & 0x80) << 8 | magnitude << 7 | nan) * 256.0F;
}
LARQL_SIMD_INLINE vfloat added(const vfloat_pair& pair) noexcept { return pair.first + pair.second; }

/// totals[r] = the sum of the lanes of sums[r], for rows_at_once rows.
LARQL_SIMD_INLINE void fold_rows(const vfloat* sums, float* totals) noexcept {
    static_assert(rows_at_once == 4);
    const vfloat even = added(exchange_halves<lanes / 2>(sums[0], sums[1]));
    const vfloat odd = added(exchange_halves<lanes / 2>(sums[2], sums[3]));
    float part[lanes];  // of rows 0, 2, 1, 3
    store(part, added(exchange_halves<lanes / 4>(even, odd)));
    constexpr std::size_t width = lanes / 4;
    for (std::size_t n = width / 2; n > 0; n /= 2)
        for (std::size_t r = 0; r < 4; ++r)
            for (std::size_t i = 0; i < n; ++i) part[r * width + i] += part[r * width + i + n];
    totals[0] = part[0];
    totals[1] = part[2 * width];
    totals[2] = part[width];
    totals[3] = part[3 * width];
}

LARQL_SIMD_FUNCTION inline void fold(const partial_sum* sums, float* totals) {
    vfloat rows[rows_at_once];
    LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) rows[r] = load(sums[r].lane);
    fold_rows(rows, totals);
}

/// A dot_numbers_kernel.
template <std::size_t Tokens, class E>
LARQL_SIMD_FUNCTION void dot_numbers(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]) {
    const E* row[rows_at_once];
    LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) row[r] = reinterpret_cast<const E*>(w.row[r]);
    vfloat total[Tokens][rows_at_once] = {};
    for (std::size_t begin = 0, index = 0; begin < w.columns; begin += w.segment, ++index) {
        const std::size_t end = w.columns - begin < w.segment ? w.columns : begin + w.segment;
        vfloat sum[Tokens][rows_at_once] = {};
        std::size_t c = begin;
        for (; c + lanes <= end; c += lanes) {
            vfloat y[Tokens];
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] = load(x.data + t * x.stride + c);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                const vfloat number = load(row[r] + c);
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] = multiply_add(number, y[t], sum[t][r]);
            }
        }
        if (c < end) {  // the rest, in vectors that end with zeros
            float others[lanes] = {};
            for (std::size_t r = 0; r < rows_at_once; ++r) {
                E numbers[lanes] = {};
                __builtin_memcpy(numbers, row[r] + c, (end - c) * sizeof(E));
                const vfloat number = load(numbers);
                for (std::size_t t = 0; t < Tokens; ++t) {
                    __builtin_memcpy(others, x.data + t * x.stride + c, (end - c) * sizeof(float));
                    sum[t][r] = multiply_add(number, load(others), sum[t][r]);
                }
            }
        }
        LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) total[t][r] =
                w.scales[r] == nullptr ? sum[t][r]
                                       : multiply_add(sum[t][r], broadcast(w.scales[r][index]), total[t][r]);
        }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) fold_rows(total[t], sums[t]);
}

/// `lanes` of sixteen signed bytes, from byte `first` on, as float.
LARQL_SIMD_INLINE vfloat widened(const detail::lanes& q, std::size_t first) noexcept {
#if LARQL_SIMD_BYTES == 64
    (void)first;
    return signed_to_x16(q);
#elif LARQL_SIMD_BYTES == 32
    const auto halves = reinterpret_cast<lane_halves>(q);
    return signed_to_x8(reinterpret_cast<detail::lanes>(lane_halves{halves[first / 8], 0}));
#else
    vfloat out;
    for (std::size_t i = 0; i < lanes; ++i) out[i] = static_cast<float>(static_cast<std::int8_t>(q[first + i]));
    return out;
#endif
}

template <block_scaling Scaling>
LARQL_SIMD_INLINE detail::lanes integers_of(const unpacked_rows& w, std::size_t r, std::size_t k) noexcept {
    if constexpr (Scaling != block_scaling::looked_up) {
        return w.q[r][k];
    } else {
#if LARQL_SIMD_BYTES > 16
        return look_up(load_lanes(reinterpret_cast<const std::byte*>(w.table)), w.q[r][k]);
#else
        detail::lanes q;
        for (std::size_t i = 0; i < 16; ++i) q[i] = static_cast<std::uint8_t>(w.table[w.q[r][k][i]]);
        return q;
#endif
    }
}

/// A dot_unpacked_kernel.
template <std::size_t Tokens, block_scaling Scaling>
LARQL_SIMD_FUNCTION void dot_unpacked(const unpacked_rows& w, const token_rows& x, partial_sum (*sums)[rows_at_once]) {
    vfloat sum[Tokens][rows_at_once];
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) sum[t][r] = load(sums[t][r].lane);
    }
    for (std::size_t k = 0; k < w.count; ++k) {
        LARQL_UNROLL for (std::size_t first = 0; first < 16; first += lanes) {
            vfloat y[Tokens];
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] = load(x.data + t * x.stride + 16 * k + first);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                vfloat number = widened(integers_of<Scaling>(w, r, k), first);
                if constexpr (Scaling == block_scaling::shifted)
                    number = multiply_add(number, broadcast(w.scale[r][k]), broadcast(w.offset[r][k]));
                else
                    number *= broadcast(w.scale[r][k]);
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] = multiply_add(number, y[t], sum[t][r]);
            }
        }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) store(sums[t][r].lane, sum[t][r]);
    }
}

// Blocks of the types that most files are stored in go from memory to sums without being unpacked on the way, at levels
// that have instructions for looking up and widening bytes.
#if LARQL_SIMD_BYTES > 16

/// An f16 scale.
LARQL_SIMD_INLINE float scale_at(const std::byte* p) noexcept {
    return f16_to_x8(lane_words{load_as<std::uint16_t>(p)})[0];
}

/// What codes of four bits stand for.
#if LARQL_SIMD_BYTES == 64
typedef vfloat nibble_table;
LARQL_SIMD_INLINE nibble_table load_table(const std::int8_t* values) noexcept {
    return signed_to_x16(load_as<detail::lanes>(reinterpret_cast<const std::byte*>(values)));
}
#else
typedef detail::lanes nibble_table;
LARQL_SIMD_INLINE nibble_table load_table(const std::int8_t* values) noexcept {
    return load_as<detail::lanes>(reinterpret_cast<const std::byte*>(values));
}
#endif

/// `lanes` of the values of 32 codes: those of the low nibbles of 16 bytes, then those of the high ones.
LARQL_SIMD_INLINE vfloat nibble_values(const std::byte* p, std::size_t first, const nibble_table& table) noexcept {
    const auto bytes = load_as<detail::lanes>(p);
#if LARQL_SIMD_BYTES == 64
#if defined(__clang__)
    const vint codes = __builtin_convertvector(bytes, vint);
    return __builtin_ia32_permvarsf512(table, first < 16 ? codes : codes >> 4);  // it reads four bits of each
#else
    const vint codes =
        __builtin_ia32_pmovzxbd512_mask(reinterpret_cast<char_lanes>(bytes), vint{}, all_lanes);  // GCC 12, as above
    return __builtin_shuffle(table, first < 16 ? codes : codes >> 4);
#endif
#else
    const detail::lanes codes = field(bytes, first < 16 ? 0 : 4, 15);
    return widened(look_up(table, codes), first % 16);
#endif
}

/// `lanes` of 32 signed bytes.
LARQL_SIMD_INLINE vfloat byte_values(const std::byte* p, std::size_t first, const nibble_table&) noexcept {
    return widened(load_as<detail::lanes>(p + first / 16 * 16), first % 16);
}

/// A dot_numbers_kernel for blocks of 32 codes behind an f16 scale.
template <std::size_t Tokens, std::size_t Bytes, vfloat (*Values)(const std::byte*, std::size_t, const nibble_table&)>
LARQL_SIMD_FUNCTION void dot_scaled(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]) {
    const nibble_table table = load_table(w.table);
    vfloat sum[Tokens][rows_at_once] = {};
    for (std::size_t c = 0, offset = 0; c < w.columns; c += 32, offset += Bytes) {
        vfloat scale[rows_at_once];
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) scale[r] = broadcast(scale_at(w.row[r] + offset));
        LARQL_UNROLL for (std::size_t first = 0; first < 32; first += lanes) {
            vfloat y[Tokens];
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] = load(x.data + t * x.stride + c + first);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                const vfloat number = Values(w.row[r] + offset + 2, first, table) * scale[r];
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] = multiply_add(number, y[t], sum[t][r]);
            }
        }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) fold_rows(sum[t], sums[t]);
}

/// The eight scales of a block of Q4_K, then its eight offsets.
LARQL_SIMD_INLINE void q4_k_scales(const std::byte* block, float* out) noexcept {
    const float d = scale_at(block), dmin = -scale_at(block + 2);
    const std::uint64_t a = load_as<std::uint32_t>(block + 4);   // scales 0 to 3, high bits of scales 4 to 7
    const std::uint64_t b = load_as<std::uint32_t>(block + 8);   // the same for the minima
    const std::uint64_t c = load_as<std::uint32_t>(block + 12);  // low bits of scales and minima 4 to 7
    const detail::lanes both = lanes_of((a & 0x3f3f3f3fU) | (c & 0x0f0f0f0fU) << 32 | (a & 0xc0c0c0c0U) << 30,
                                        (b & 0x3f3f3f3fU) | (c >> 4 & 0x0f0f0f0fU) << 32 | (b & 0xc0c0c0c0U) << 30);
#if LARQL_SIMD_BYTES == 64
    const vfloat factors{d, d, d, d, d, d, d, d, dmin, dmin, dmin, dmin, dmin, dmin, dmin, dmin};
    store(out, widened(both, 0) * factors);
#else
    LARQL_UNROLL for (std::size_t i = 0; i < 16; i += lanes) store(out + i, widened(both, i) * (i < 8 ? d : dmin));
#endif
}

/// A dot_numbers_kernel for blocks of Q4_K.
template <std::size_t Tokens>
LARQL_SIMD_FUNCTION void dot_q4_k(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]) {
    const nibble_table table = load_table(w.table);
    vfloat sum[Tokens][rows_at_once] = {};
    float scales[rows_at_once][16];
    for (std::size_t c = 0, offset = 0; c < w.columns; c += 256, offset += 144) {
        for (std::size_t r = 0; r < rows_at_once; ++r) q4_k_scales(w.row[r] + offset, scales[r]);
        for (std::size_t group = 0; group < 8; group += 2)  // of 32: low nibbles of 32 bytes, then their high ones
            LARQL_UNROLL for (std::size_t first = 0; first < 64; first += lanes) {
                const std::size_t part = first % 32, bytes = offset + 16 + group * 16 + part / 16 * 16;
                vfloat y[Tokens];
                LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) y[t] =
                    load(x.data + t * x.stride + c + group * 32 + first);
                LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                    const vfloat code = nibble_values(w.row[r] + bytes, first / 32 * 16 + part % 16, table);
                    const float* const scale = scales[r] + group + first / 32;
                    const vfloat number = multiply_add(code, broadcast(scale[0]), broadcast(scale[8]));
                    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] =
                        multiply_add(number, y[t], sum[t][r]);
                }
            }
    }
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) fold_rows(sum[t], sums[t]);
}
#endif

/// An add_numbers_kernel.
template <class E>
LARQL_SIMD_FUNCTION void add_numbers(const std::byte* rows, std::size_t row_bytes, std::size_t count,
                                     std::size_t columns, const float* factors, bool add, float* out) {
    const auto at = [=](std::size_t r, std::size_t c) { return reinterpret_cast<const E*>(rows + r * row_bytes) + c; };
    std::size_t c = 0;
    for (; c + lanes <= columns; c += lanes) {
        vfloat sum = add ? load(out + c) : vfloat{};
        for (std::size_t r = 0; r < count; ++r) sum = multiply_add(broadcast(factors[r]), load(at(r, c)), sum);
        store(out + c, sum);
    }
    if (c == columns) return;
    float rest[lanes] = {};
    if (add) __builtin_memcpy(rest, out + c, (columns - c) * sizeof(float));
    vfloat sum = load(rest);
    for (std::size_t r = 0; r < count; ++r) {
        E numbers[lanes] = {};
        __builtin_memcpy(numbers, at(r, c), (columns - c) * sizeof(E));
        sum = multiply_add(broadcast(factors[r]), load(numbers), sum);
    }
    store(rest, sum);
    __builtin_memcpy(out + c, rest, (columns - c) * sizeof(float));
}

/// Four tokens at once need half of 32 registers.
inline constexpr std::size_t groups = lanes == 16 ? 3 : 2;

template <class E>
constexpr dot_numbers_kernel dot_of_four() noexcept {
    if constexpr (groups > 2)
        return dot_numbers<4, E>;
    else
        return nullptr;
}
template <block_scaling Scaling>
constexpr dot_unpacked_kernel dot_of_four() noexcept {
    if constexpr (groups > 2)
        return dot_unpacked<4, Scaling>;
    else
        return nullptr;
}

#if LARQL_SIMD_BYTES > 16
template <std::size_t Bytes, vfloat (*Values)(const std::byte*, std::size_t, const nibble_table&)>
constexpr dot_numbers_kernel dot_scaled_of_four() noexcept {
    if constexpr (groups > 2)
        return dot_scaled<4, Bytes, Values>;
    else
        return nullptr;
}
constexpr dot_numbers_kernel dot_q4_k_of_four() noexcept {
    if constexpr (groups > 2)
        return dot_q4_k<4>;
    else
        return nullptr;
}
#endif

#define LARQL_FEW_NUMBERS(E) \
    { dot_numbers<1, E>, dot_numbers<2, E>, dot_of_four<E>() }
#define LARQL_FEW_SCALED(B, V) \
    { dot_scaled<1, B, V>, dot_scaled<2, B, V>, dot_scaled_of_four<B, V>() }
#define LARQL_FEW_UNPACKED(S) \
    { dot_unpacked<1, block_scaling::S>, dot_unpacked<2, block_scaling::S>, dot_of_four<block_scaling::S>() }
inline constexpr few_kernels kernels{
    groups,
    {LARQL_FEW_NUMBERS(float),
     LARQL_FEW_NUMBERS(f16),
     LARQL_FEW_NUMBERS(bf16),
     LARQL_FEW_NUMBERS(e4m3_bits),
#if LARQL_SIMD_BYTES > 16
     LARQL_FEW_SCALED(34, byte_values),
     LARQL_FEW_SCALED(18, nibble_values),
     {dot_q4_k<1>, dot_q4_k<2>, dot_q4_k_of_four()}
#endif
    },
    {LARQL_FEW_UNPACKED(scaled), LARQL_FEW_UNPACKED(shifted), LARQL_FEW_UNPACKED(looked_up)},
    fold,
    {add_numbers<float>, add_numbers<f16>, add_numbers<bf16>, add_numbers<e4m3_bits>}};
#undef LARQL_FEW_NUMBERS
#undef LARQL_FEW_SCALED
#undef LARQL_FEW_UNPACKED

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::few

#endif
