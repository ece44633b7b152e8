// SPDX-License-Identifier: Apache-2.0
//
// What kernels for few rows of activations have in common: stored numbers as vectors, sums of several rows at once.
// Included once per level of vector code by gemm/few_kernels.hpp; see simd_levels.hpp.
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

}  // namespace larql::detail::LARQL_SIMD_NAMESPACE::few

#endif
