// SPDX-License-Identifier: Apache-2.0
//
// SHA-256, for checksums of files that people hold against those that `sha256sum` prints.
#ifndef LARQL_DETAIL_IO_SHA256_HPP
#define LARQL_DETAIL_IO_SHA256_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace larql::detail {

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
inline constexpr std::array<std::uint32_t, 64> sha256_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/// The SHA-256 of bytes that come in pieces.
/// @source FIPS 180-4, sections 4.1.2, 5.1.1 and 6.2
class sha256 {
public:
    /// Takes the next bytes; any number, none included.
    void update(std::span<const std::byte> bytes) noexcept {
        m_total_bytes += bytes.size();
        while (!bytes.empty()) {
            const std::size_t taken = std::min(bytes.size(), m_block.size() - m_filled);
            std::memcpy(m_block.data() + m_filled, bytes.data(), taken);
            m_filled += taken;
            bytes = bytes.subspan(taken);
            if (m_filled == m_block.size()) digest_block();
        }
    }

    /// The hash of all bytes so far, most significant byte first. The object is then used up: make another for the next
    /// hash.
    [[nodiscard]] std::array<std::byte, 32> finish() noexcept {
        const std::uint64_t bits = m_total_bytes * 8;
        m_block[m_filled++] = std::byte{0x80};
        if (m_filled > m_block.size() - sizeof bits) {  // the length does not fit behind the data any more
            std::fill(m_block.begin() + static_cast<std::ptrdiff_t>(m_filled), m_block.end(), std::byte{0});
            digest_block();
        }
        std::fill(m_block.begin() + static_cast<std::ptrdiff_t>(m_filled), m_block.end(), std::byte{0});
        for (std::size_t i = 0; i < sizeof bits; ++i)
            m_block[m_block.size() - 1 - i] = static_cast<std::byte>(bits >> (8 * i));
        digest_block();
        std::array<std::byte, 32> out;
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = static_cast<std::byte>(m_state[i / 4] >> (24 - 8 * (i % 4)));
        return out;
    }

private:
    void digest_block() noexcept {
        std::array<std::uint32_t, 64> w;
        for (std::size_t i = 0; i < 16; ++i) {
            const auto byte = [&](std::size_t j) { return static_cast<std::uint32_t>(m_block[4 * i + j]); };
            w[i] = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        }
        for (std::size_t i = 16; i < w.size(); ++i) {
            const std::uint32_t a = w[i - 15], b = w[i - 2];
            const std::uint32_t s0 = std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3);
            const std::uint32_t s1 = std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        std::array<std::uint32_t, 8> v = m_state;  // a to h
        for (std::size_t i = 0; i < w.size(); ++i) {
            const std::uint32_t s1 = std::rotr(v[4], 6) ^ std::rotr(v[4], 11) ^ std::rotr(v[4], 25);
            const std::uint32_t chosen = (v[4] & v[5]) ^ (~v[4] & v[6]);
            const std::uint32_t s0 = std::rotr(v[0], 2) ^ std::rotr(v[0], 13) ^ std::rotr(v[0], 22);
            const std::uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            const std::uint32_t t1 = v[7] + s1 + chosen + sha256_constants[i] + w[i];
            v = {t1 + s0 + majority, v[0], v[1], v[2], v[3] + t1, v[4], v[5], v[6]};
        }
        for (std::size_t i = 0; i < v.size(); ++i) m_state[i] += v[i];
        m_filled = 0;
    }

    // The first 32 bits of the fractional parts of the square roots of the first 8 primes.
    std::array<std::uint32_t, 8> m_state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, 64> m_block{};
    std::size_t m_filled = 0;  // bytes of m_block
    std::uint64_t m_total_bytes = 0;
};

/// Bytes as lowercase hexadecimal digits, two for each, as checksums are written.
[[nodiscard]] inline std::string hex_text(std::span<const std::byte> bytes) {
    constexpr char digits[] = "0123456789abcdef";
    std::string out;
    out.reserve(2 * bytes.size());
    for (const std::byte b : bytes) {
        out += digits[std::to_integer<unsigned>(b) >> 4];
        out += digits[std::to_integer<unsigned>(b) & 15];
    }
    return out;
}

}  // namespace larql::detail

#endif
