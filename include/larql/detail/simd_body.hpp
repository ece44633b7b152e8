// SPDX-License-Identifier: Apache-2.0
//
// Vectors of float for one level of vector code. Included once per level by simd.hpp; see simd_levels.hpp.
// GCC's and Clang's vector extensions are used instead of <immintrin.h>, which costs every user half a second per
// source file.
#ifdef LARQL_SIMD_NAMESPACE

namespace larql::detail::LARQL_SIMD_NAMESPACE {

inline constexpr std::size_t lanes = LARQL_SIMD_BYTES / sizeof(float);

typedef float vfloat __attribute__((vector_size(LARQL_SIMD_BYTES)));
typedef std::int32_t vint __attribute__((vector_size(LARQL_SIMD_BYTES)));
typedef std::uint32_t vuint __attribute__((vector_size(LARQL_SIMD_BYTES)));
typedef std::uint16_t vhalf __attribute__((vector_size(LARQL_SIMD_BYTES / 2)));  // as many 16-bit numbers

// Memory forms: any alignment, and may alias the scalars that are there.
typedef float vfloat_memory __attribute__((vector_size(LARQL_SIMD_BYTES), aligned(4), may_alias));
typedef std::uint16_t vhalf_memory __attribute__((vector_size(LARQL_SIMD_BYTES / 2), aligned(2), may_alias));
typedef std::uint8_t vbyte_memory __attribute__((vector_size(LARQL_SIMD_BYTES / 4), aligned(1), may_alias));
typedef std::int8_t vcode_memory __attribute__((vector_size(LARQL_SIMD_BYTES / 4), aligned(1), may_alias));
typedef std::int32_t vint_memory __attribute__((vector_size(LARQL_SIMD_BYTES), aligned(4), may_alias));

#if LARQL_SIMD_BYTES == 64
// Arguments of the builtin functions that have a mask and a rounding mode.
#if defined(__clang__)
inline constexpr unsigned short all_lanes = 0xffff;
#else
inline constexpr short all_lanes = -1;
#endif
inline constexpr int current_rounding = 4;
#endif

LARQL_SIMD_INLINE vfloat broadcast(float x) noexcept {
    return x - vfloat{};  // not vfloat{} + x, which would turn -0 into 0
}
LARQL_SIMD_INLINE vint broadcast(std::int32_t x) noexcept { return x - vint{}; }

LARQL_SIMD_INLINE vfloat load(const float* p) noexcept { return *reinterpret_cast<const vfloat_memory*>(p); }
LARQL_SIMD_INLINE vint load(const std::int32_t* p) noexcept { return *reinterpret_cast<const vint_memory*>(p); }
LARQL_SIMD_INLINE void store(float* p, vfloat x) noexcept { *reinterpret_cast<vfloat_memory*>(p) = x; }

LARQL_SIMD_INLINE vfloat load(const bf16* p) noexcept {
    const vhalf bits = *reinterpret_cast<const vhalf_memory*>(p);
#if LARQL_SIMD_BYTES == 64 && !defined(__clang__)  // GCC 12 widens in two halves
    typedef short signed_bits __attribute__((vector_size(32)));
    typedef int signed_words __attribute__((vector_size(64)));
    const auto wide = reinterpret_cast<vuint>(
        __builtin_ia32_pmovzxwd512_mask(reinterpret_cast<signed_bits>(bits), signed_words{}, -1));
#elif LARQL_SIMD_BYTES == 32 && !defined(__clang__)
    typedef short signed_bits __attribute__((vector_size(16)));
    const auto wide = reinterpret_cast<vuint>(__builtin_ia32_pmovzxwd256(reinterpret_cast<signed_bits>(bits)));
#else
    const vuint wide = __builtin_convertvector(bits, vuint);
#endif
    return reinterpret_cast<vfloat>(wide << 16);
}

/// The floats of f16 bits.
LARQL_SIMD_INLINE vfloat from_f16_bits(vhalf bits) noexcept {
#if LARQL_SIMD_BYTES == 64
    typedef std::int16_t signed_bits __attribute__((vector_size(32)));
    return __builtin_ia32_vcvtph2ps512_mask(reinterpret_cast<signed_bits>(bits), vfloat{}, all_lanes, current_rounding);
#elif LARQL_SIMD_BYTES == 32
    typedef std::int16_t signed_bits __attribute__((vector_size(16)));
    return __builtin_ia32_vcvtph2ps256(reinterpret_cast<signed_bits>(bits));
#else
    // Exponent and mantissa move into place; a product with 2^112 corrects the bias and normalises subnormals.
    const vuint wide = __builtin_convertvector(bits, vuint);
    const vuint magnitude = (wide & 0x7fffU) << 13;
    const vfloat finite = reinterpret_cast<vfloat>(magnitude) * 0x1p112F;
    const vuint special = magnitude | 0x7f800000U;  // infinity and NaN
    const vuint chosen = (magnitude >= 0x0f800000U) ? special : reinterpret_cast<vuint>(finite);
    return reinterpret_cast<vfloat>(chosen | ((wide & 0x8000U) << 16));
#endif
}
LARQL_SIMD_INLINE vfloat load(const f16* p) noexcept {
    return from_f16_bits(*reinterpret_cast<const vhalf_memory*>(p));
}

LARQL_SIMD_INLINE vfloat load(const f8_e4m3* p) noexcept {
#if LARQL_SIMD_BYTES == 64 && !defined(__clang__)  // GCC 12 widens in parts
    typedef char signed_bytes __attribute__((vector_size(16), aligned(1), may_alias));
    typedef int signed_words __attribute__((vector_size(64)));
    const auto wide = reinterpret_cast<vuint>(
        __builtin_ia32_pmovzxbd512_mask(*reinterpret_cast<const signed_bytes*>(p), signed_words{}, -1));
#elif LARQL_SIMD_BYTES == 32 && !defined(__clang__)
    typedef char signed_bytes __attribute__((vector_size(16)));
    typedef long long two_words __attribute__((vector_size(16)));
    long long eight = 0;
    __builtin_memcpy(&eight, p, sizeof eight);
    const auto wide =
        reinterpret_cast<vuint>(__builtin_ia32_pmovzxbd256(reinterpret_cast<signed_bytes>(two_words{eight, 0})));
#else
    const vuint wide = __builtin_convertvector(*reinterpret_cast<const vbyte_memory*>(p), vuint);
#endif
    // As f16: exponent and mantissa in place, and a product that corrects the bias and normalises subnormals.
    const vuint magnitude = wide & 0x7fU;
    const vfloat finite = reinterpret_cast<vfloat>(magnitude << 20) * 0x1p120F;
    const vuint chosen = (magnitude == 0x7fU) ? (magnitude | 0x7fc00000U) : reinterpret_cast<vuint>(finite);
    return reinterpret_cast<vfloat>(chosen | ((wide & 0x80U) << 24));
}

LARQL_SIMD_INLINE vfloat load(const std::int8_t* p) noexcept {
#if LARQL_SIMD_BYTES == 64 && !defined(__clang__)  // GCC 12 widens in parts
    typedef char signed_bytes __attribute__((vector_size(16), aligned(1), may_alias));
    typedef int signed_words __attribute__((vector_size(64)));
    const vint wide =
        __builtin_ia32_pmovsxbd512_mask(*reinterpret_cast<const signed_bytes*>(p), signed_words{}, all_lanes);
#elif LARQL_SIMD_BYTES == 32 && !defined(__clang__)
    typedef char signed_bytes __attribute__((vector_size(16)));
    typedef long long two_words __attribute__((vector_size(16)));
    long long eight = 0;
    __builtin_memcpy(&eight, p, sizeof eight);
    const vint wide = __builtin_ia32_pmovsxbd256(reinterpret_cast<signed_bytes>(two_words{eight, 0}));
#else
    const vint wide = __builtin_convertvector(*reinterpret_cast<const vcode_memory*>(p), vint);
#endif
    return __builtin_convertvector(wide, vfloat);
}

/// Numbers i, i + 1, ... of a row; where it is made of blocks, i is a multiple of the lanes.
template <class E>
LARQL_SIMD_INLINE vfloat load_row(const E* row, std::size_t i) noexcept {
    return load(row + i);
}
LARQL_SIMD_INLINE vfloat load_row(const q8_0_block* row, std::size_t i) noexcept {
    const q8_0_block& block = row[i / q8_0_block::elements];
    const vhalf scale = block.scale.bits - vhalf{};
    return load(block.codes + i % q8_0_block::elements) * from_f16_bits(scale);
}

/// The greater; NaN if b is NaN.
LARQL_SIMD_INLINE vfloat maximum(vfloat a, vfloat b) noexcept { return a > b ? a : b; }

LARQL_SIMD_INLINE vfloat plus(vfloat a, vfloat b) noexcept { return a + b; }

/// a * b + c: fused at every level that has the instruction, and nowhere else. Written as an expression, each compiler
/// fuses where it sees fit (GCC 14 not in a chain of AVX2 sums), and two kernels that add the same numbers in the same
/// order differ in the last bits.
LARQL_SIMD_INLINE vfloat multiply_add(vfloat a, vfloat b, vfloat c) noexcept {
#if LARQL_SIMD_FUSED && LARQL_HAS_BUILTIN(__builtin_elementwise_fma)
    return __builtin_elementwise_fma(a, b, c);
#elif LARQL_SIMD_BYTES == 64
    return __builtin_ia32_vfmaddps512_mask(a, b, c, all_lanes, current_rounding);
#elif LARQL_SIMD_BYTES == 32
    return __builtin_ia32_vfmaddps256(a, b, c);
#elif LARQL_SIMD_FUSED && defined(__FMA__)
    return __builtin_ia32_vfmaddps(a, b, c);
#elif LARQL_SIMD_FUSED && LARQL_HAS_BUILTIN(__builtin_aarch64_fmav4sf)  // GCC, which has no function for any vector
    return __builtin_aarch64_fmav4sf(a, b, c);
#elif LARQL_SIMD_FUSED
    LARQL_UNROLL for (std::size_t i = 0; i < lanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    LARQL_SIMD_NO_FUSION
    return a * b + c;
#endif
}
LARQL_SIMD_INLINE float multiply_add(float a, float b, float c) noexcept {
#if LARQL_SIMD_FUSED
    return __builtin_fmaf(a, b, c);
#else
    LARQL_SIMD_NO_FUSION
    return a * b + c;
#endif
}

/// 2^x for x <= 0, within 1 ulp; 0 below -126. NaN stays NaN.
LARQL_SIMD_INLINE vfloat exp2_negative(vfloat x) noexcept {
    const vint n = __builtin_convertvector(x - 0.5F, vint);  // truncation rounds a negative number up: nearest
    const vfloat r = x - __builtin_convertvector(n, vfloat);
    // Minimax for the relative error on [-0.5, 0.5]: 1.9e-9 before rounding.
    vfloat p = broadcast(0.0001534581242594868F);
    p = multiply_add(p, r, broadcast(0.0013399930903688073F));
    p = multiply_add(p, r, broadcast(0.009618489071726799F));
    p = multiply_add(p, r, broadcast(0.05550328642129898F));
    p = multiply_add(p, r, broadcast(0.24022646248340607F));
    p = multiply_add(p, r, broadcast(0.6931471824645996F));
    p = multiply_add(p, r, broadcast(1.0F));
    const vfloat scale = reinterpret_cast<vfloat>(reinterpret_cast<vuint>(n + 127) << 23);
    const vint tiny = x < -126.0F;
    return reinterpret_cast<vfloat>(reinterpret_cast<vint>(p * scale) & ~tiny);
}

/// tanh(x), within a few ulp.
LARQL_SIMD_INLINE vfloat tanh(vfloat x) noexcept {
    const vint sign = reinterpret_cast<vint>(x) & std::numeric_limits<std::int32_t>::min();
    const vfloat a = reinterpret_cast<vfloat>(reinterpret_cast<vint>(x) ^ sign);
    const vfloat e = exp2_negative(a * -2.8853900817779268F);  // exp(-2a)
    const vfloat large = (1.0F - e) / (1.0F + e);
    // Minimax for tanh(a)/a in a^2 on [0, 0.4]: 4.5e-9.
    const vfloat z = x * x;
    vfloat p = broadcast(-0.005602740682661533F);
    p = multiply_add(p, z, broadcast(0.020539939403533936F));
    p = multiply_add(p, z, broadcast(-0.05370531976222992F));
    p = multiply_add(p, z, broadcast(0.13330931961536407F));
    p = multiply_add(p, z, broadcast(-0.33333250880241394F));
    const vfloat small = multiply_add(a * z, p, a);
    const vfloat magnitude = z < 0.4F ? small : large;
    return reinterpret_cast<vfloat>(reinterpret_cast<vint>(magnitude) | sign);
}

/// The sum of the lanes.
LARQL_SIMD_INLINE float sum_lanes(vfloat x) noexcept {
    float part[lanes];
    store(part, x);
    for (std::size_t n = lanes / 2; n > 0; n /= 2)
        for (std::size_t i = 0; i < n; ++i) part[i] += part[i + n];
    return part[0];
}

/// The two results of exchanging halves between a and b: of each pair of segments of 2 * Half lanes, the first halves
/// side by side in one, the second halves in the other.
struct vfloat_pair {
    vfloat first;
    vfloat second;
};
template <std::size_t Half, std::size_t... Lane>
LARQL_SIMD_INLINE vfloat_pair exchange_halves(vfloat a, vfloat b, std::index_sequence<Lane...>) noexcept {
    constexpr auto from = [](std::size_t lane) {
        const std::size_t segment = lane / (2 * Half) * (2 * Half);
        return static_cast<int>(segment + lane % Half + (lane % (2 * Half) < Half ? 0 : lanes));
    };
    return {__builtin_shufflevector(a, b, from(Lane)...), __builtin_shufflevector(a, b, (from(Lane) + int{Half})...)};
}
template <std::size_t Half>
LARQL_SIMD_INLINE vfloat_pair exchange_halves(vfloat a, vfloat b) noexcept {
    return exchange_halves<Half>(a, b, std::make_index_sequence<lanes>{});
}

template <std::size_t Half>
LARQL_SIMD_INLINE void transpose_step(vfloat* rows) noexcept {
    LARQL_UNROLL for (std::size_t i = 0; i < lanes; i += 2 * Half) {
        LARQL_UNROLL for (std::size_t j = i; j < i + Half; ++j) {
            const vfloat_pair pair = exchange_halves<Half>(rows[j], rows[j + Half]);
            rows[j] = pair.first;
            rows[j + Half] = pair.second;
        }
    }
}
/// rows[i][j] becomes rows[j][i], for as many rows as lanes.
LARQL_SIMD_INLINE void transpose(vfloat* rows) noexcept {
    if constexpr (lanes == 16) transpose_step<8>(rows);
    if constexpr (lanes >= 8) transpose_step<4>(rows);
    transpose_step<2>(rows);
    transpose_step<1>(rows);
}

template <std::size_t Half>
LARQL_SIMD_INLINE void fold_step(vfloat* sums) noexcept {
    LARQL_UNROLL for (std::size_t i = 0; i < Half; ++i) {
        const vfloat_pair pair = exchange_halves<Half>(sums[i], sums[i + Half]);
        sums[i] = pair.first + pair.second;
    }
}
/// Lane i of the result is the sum of the lanes of sums[i], for as many as there are lanes. Uses up the array.
LARQL_SIMD_INLINE vfloat fold_lanes(vfloat* sums) noexcept {
    if constexpr (lanes == 16) fold_step<8>(sums);
    if constexpr (lanes >= 8) fold_step<4>(sums);
    fold_step<2>(sums);
    fold_step<1>(sums);
    return sums[0];
}

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE

#endif
