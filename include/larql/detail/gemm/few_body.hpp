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

/// Vectors of 32 numbers.
inline constexpr std::size_t vectors_of_32 = 32 / lanes;

/// Vector v of 32 numbers in the order in which they lie.
LARQL_SIMD_INLINE vfloat in_order(const float* numbers, std::size_t v) noexcept { return load(numbers + v * lanes); }

/// Blocks of 32 signed bytes.
struct byte_codes {
    static constexpr std::size_t bytes = 32;
    struct table {};
    LARQL_SIMD_INLINE static table load_table(const std::int8_t*) noexcept { return {}; }
    LARQL_SIMD_INLINE static void decode(const std::byte* p, const table&, vfloat* code) noexcept {
        LARQL_UNROLL for (std::size_t v = 0; v < vectors_of_32; ++v) {
#if LARQL_SIMD_BYTES == 64
            code[v] = signed_to_x16(load_as<detail::lanes>(p + v * lanes));
#else
            code[v] = signed_to_x8(lanes_of(load_as<std::uint64_t>(p + v * lanes), 0));
#endif
        }
    }
    LARQL_SIMD_INLINE static vfloat activations(const float* x, std::size_t v) noexcept { return in_order(x, v); }
};

#if LARQL_SIMD_BYTES == 64
/// Blocks of 32 codes of four bits: the low halves of 16 bytes, then the high ones.
struct nibble_codes {
    static constexpr std::size_t bytes = 16;
    typedef vfloat table;  ///< what each code stands for
    LARQL_SIMD_INLINE static table load_table(const std::int8_t* values) noexcept {
        return signed_to_x16(load_as<detail::lanes>(reinterpret_cast<const std::byte*>(values)));
    }
    /// The value of the low four bits of each number.
    LARQL_SIMD_INLINE static vfloat values(vint codes, const table& t) noexcept {
#if defined(__clang__)
        return __builtin_ia32_permvarsf512(t, codes);
#else
        return __builtin_shuffle(t, codes);
#endif
    }
    /// Sixteen bytes, of which the codes are the low or high halves.
    LARQL_SIMD_INLINE static vfloat half(const std::byte* p, bool high, const table& t) noexcept {
        const auto bytes16 = load_as<detail::lanes>(p);
#if defined(__clang__)
        const vint codes = __builtin_convertvector(bytes16, vint);
#else
        const vint codes =  // GCC 12 widens byte by byte
            __builtin_ia32_pmovzxbd512_mask(reinterpret_cast<char_lanes>(bytes16), vint{}, all_lanes);
#endif
        return values(high ? codes >> 4 : codes, t);
    }
    LARQL_SIMD_INLINE static void decode(const std::byte* p, const table& t, vfloat* code) noexcept {
        code[0] = half(p, false, t);
        code[1] = half(p, true, t);
    }
    /// The low or high halves of 32 bytes.
    LARQL_SIMD_INLINE static void decode_half(const std::byte* p, bool high, const table& t, vfloat* code) noexcept {
        code[0] = half(p, high, t);
        code[1] = half(p + 16, high, t);
    }
    LARQL_SIMD_INLINE static vfloat activations(const float* x, std::size_t v) noexcept { return in_order(x, v); }
};
#else
/// Blocks of 32 codes of four bits: the low halves of 16 bytes, then the high ones. The integers that codes stand for
/// are bf16 numbers, whose two bytes are looked up and put side by side: there is nothing to convert.
struct nibble_codes {
    static constexpr std::size_t bytes = 16;
    typedef char wide_bytes __attribute__((vector_size(32)));
    typedef std::uint16_t wide_words __attribute__((vector_size(32)));
    typedef std::uint64_t wide_halves __attribute__((vector_size(32)));
    struct table {
        wide_bytes low;  ///< of a bf16's bits; for each half of a vector
        wide_bytes high;
    };
    LARQL_SIMD_INLINE static table load_table(const std::int8_t* values) noexcept {
        const auto q = load_as<lane_halves>(reinterpret_cast<const std::byte*>(values));
        std::uint32_t bits[16];
        store(reinterpret_cast<float*>(bits), signed_to_x8(reinterpret_cast<detail::lanes>(q)));
        store(reinterpret_cast<float*>(bits + 8), signed_to_x8(lanes_of(q[1], 0)));
        char low[32], high[32];
        for (std::size_t i = 0; i < 16; ++i) {
            low[i] = low[i + 16] = static_cast<char>(bits[i] >> 16);
            high[i] = high[i + 16] = static_cast<char>(bits[i] >> 24);
        }
        table t;
        __builtin_memcpy(&t.low, low, sizeof low);
        __builtin_memcpy(&t.high, high, sizeof high);
        return t;
    }
    /// The values of 32 codes, one in each byte: elements 4 v to 4 v + 3 of each half are vector v.
    LARQL_SIMD_INLINE static void values(wide_halves codes, const table& t, vfloat* code) noexcept {
        const auto q = reinterpret_cast<wide_bytes>(codes);
        const wide_bytes low = __builtin_ia32_pshufb256(t.low, q), high = __builtin_ia32_pshufb256(t.high, q);
#if defined(__clang__)
#define LARQL_INTERLEAVED(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LARQL_INTERLEAVED(T, a, b, ...) __builtin_shuffle(a, b, T{__VA_ARGS__})
#endif
        const auto first = reinterpret_cast<wide_words>(
            LARQL_INTERLEAVED(wide_bytes, low, high, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 16, 48, 17,
                              49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55));
        const auto second = reinterpret_cast<wide_words>(
            LARQL_INTERLEAVED(wide_bytes, low, high, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47, 24,
                              56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63));
        const wide_words zero{};
        LARQL_UNROLL for (std::size_t i = 0; i < 2; ++i) {
            const wide_words words = i == 0 ? first : second;
            code[2 * i] = reinterpret_cast<vfloat>(
                LARQL_INTERLEAVED(wide_words, zero, words, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27));
            code[2 * i + 1] = reinterpret_cast<vfloat>(
                LARQL_INTERLEAVED(wide_words, zero, words, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31));
        }
#undef LARQL_INTERLEAVED
    }
    LARQL_SIMD_INLINE static void decode(const std::byte* p, const table& t, vfloat* code) noexcept {
        const auto a = load_as<lane_halves>(p);
#if defined(__clang__)
        const wide_halves twice = __builtin_shufflevector(a, a, 0, 1, 0, 1);
#else
        typedef long long signed_halves __attribute__((vector_size(16)));
        const auto twice =
            reinterpret_cast<wide_halves>(__builtin_ia32_vbroadcastsi256(reinterpret_cast<signed_halves>(a)));
#endif
        values(twice >> wide_halves{0, 0, 4, 4} & 0x0f0f0f0f0f0f0f0fU, t, code);
    }
    /// The low or high halves of 32 bytes.
    LARQL_SIMD_INLINE static void decode_half(const std::byte* p, bool high, const table& t, vfloat* code) noexcept {
        wide_halves q;
        __builtin_memcpy(&q, p, sizeof q);
        values((high ? q >> 4 : q) & 0x0f0f0f0f0f0f0f0fU, t, code);
    }
    LARQL_SIMD_INLINE static vfloat activations(const float* x, std::size_t v) noexcept {
        typedef float half __attribute__((vector_size(16), aligned(4), may_alias));
        const half a = *reinterpret_cast<const half*>(x + 4 * v), b = *reinterpret_cast<const half*>(x + 16 + 4 * v);
#if defined(__clang__)
        return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
        return __builtin_ia32_vinsertf128_ps256(__builtin_ia32_ps256_ps(a), b, 1);
#endif
    }
};
#endif

/// The activations of some tokens with 32 columns, in the order of the codes.
template <class Codes, std::size_t Tokens>
LARQL_SIMD_INLINE void load_activations(const token_rows& x, std::size_t column,
                                        vfloat (&y)[Tokens][vectors_of_32]) noexcept {
    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
        LARQL_UNROLL for (std::size_t v = 0; v < vectors_of_32; ++v) y[t][v] =
            Codes::activations(x.data + t * x.stride + column, v);
    }
}

/// A dot_numbers_kernel for blocks of 32 codes behind an f16 scale, with which a block's sum is multiplied.
template <std::size_t Tokens, class Codes>
LARQL_SIMD_FUNCTION void dot_scaled(const number_rows& w, const token_rows& x, float (*sums)[rows_at_once]) {
    const typename Codes::table table = Codes::load_table(w.table);
    vfloat sum[Tokens][rows_at_once] = {};
    for (std::size_t c = 0, offset = 0; c < w.columns; c += 32, offset += 2 + Codes::bytes) {
        vfloat y[Tokens][vectors_of_32];
        load_activations<Codes>(x, c, y);
        LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
            vfloat code[vectors_of_32];
            Codes::decode(w.row[r] + offset + 2, table, code);
            const vfloat scale = broadcast(scale_at(w.row[r] + offset));
            LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) {
                vfloat part = code[0] * y[t][0];
                LARQL_UNROLL for (std::size_t v = 1; v < vectors_of_32; ++v) part =
                    multiply_add(code[v], y[t][v], part);
                sum[t][r] = multiply_add(part, scale, sum[t][r]);
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
    const nibble_codes::table table = nibble_codes::load_table(w.table);
    vfloat sum[Tokens][rows_at_once] = {};
    float scales[rows_at_once][16];
    for (std::size_t c = 0, offset = 0; c < w.columns; c += 256, offset += 144) {
        for (std::size_t r = 0; r < rows_at_once; ++r) q4_k_scales(w.row[r] + offset, scales[r]);
        for (std::size_t group = 0; group < 8; ++group) {  // of 32: low nibbles of 32 bytes, then their high ones
            vfloat y[Tokens][vectors_of_32];
            load_activations<nibble_codes>(x, c + group * 32, y);
            LARQL_UNROLL for (std::size_t r = 0; r < rows_at_once; ++r) {
                vfloat code[vectors_of_32];
                nibble_codes::decode_half(w.row[r] + offset + 16 + group / 2 * 32, group % 2 != 0, table, code);
                const vfloat scale = broadcast(scales[r][group]), minimum = broadcast(scales[r][8 + group]);
                LARQL_UNROLL for (std::size_t v = 0; v < vectors_of_32; ++v) {
                    const vfloat number = multiply_add(code[v], scale, minimum);
                    LARQL_UNROLL for (std::size_t t = 0; t < Tokens; ++t) sum[t][r] =
                        multiply_add(number, y[t][v], sum[t][r]);
                }
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

/// Whether there are registers for the sums of four tokens.
inline constexpr bool has_four_tokens = lanes == 16;

template <class E>
constexpr dot_numbers_kernel dot_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_numbers<4, E>;
    else
        return nullptr;
}
template <block_scaling Scaling>
constexpr dot_unpacked_kernel dot_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_unpacked<4, Scaling>;
    else
        return nullptr;
}

#if LARQL_SIMD_BYTES > 16
constexpr dot_numbers_kernel dot_q4_k_of_four() noexcept {
    if constexpr (has_four_tokens)
        return dot_q4_k<4>;
    else
        return nullptr;
}
#endif

#define LARQL_FEW_NUMBERS(E) \
    { dot_numbers<1, E>, dot_numbers<2, E>, dot_of_four<E>() }
#define LARQL_FEW_SCALED(C) \
    { dot_scaled<1, C>, dot_scaled<2, C>, dot_scaled<4, C> }
#define LARQL_FEW_UNPACKED(S) \
    { dot_unpacked<1, block_scaling::S>, dot_unpacked<2, block_scaling::S>, dot_of_four<block_scaling::S>() }
inline constexpr few_kernels kernels{
    {LARQL_FEW_NUMBERS(float),
     LARQL_FEW_NUMBERS(f16),
     LARQL_FEW_NUMBERS(bf16),
     LARQL_FEW_NUMBERS(e4m3_bits),
#if LARQL_SIMD_BYTES > 16
     LARQL_FEW_SCALED(byte_codes),
     LARQL_FEW_SCALED(nibble_codes),
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
