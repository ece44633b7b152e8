// SPDX-License-Identifier: Apache-2.0
//
// Every stored type: decoding touches no byte beyond its blocks, gives the same whatever the alignment, the piece and
// the level of vector code, and what larql encodes is decoded again.
#include <larql/detail/cpu.hpp>
#include <larql/dtype.hpp>
#include <larql/ggml_blocks.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "replay.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

/// Bytes in a block of the heap that ends where they end, so that the address sanitizer sees a read beyond them.
class exact_bytes {
public:
    exact_bytes(const std::string& bytes, std::size_t skew)
        : m_memory(std::make_unique<std::byte[]>(bytes.size() + skew)), m_span(m_memory.get() + skew, bytes.size()) {
        if (!bytes.empty()) std::memcpy(m_span.data(), bytes.data(), bytes.size());
    }
    [[nodiscard]] std::span<const std::byte> span() const { return m_span; }

private:
    std::unique_ptr<std::byte[]> m_memory;
    std::span<std::byte> m_span;
};

void require_same(std::span<const float> a, std::span<const float> b, const std::string& what) {
    for (std::size_t i = 0; i < a.size(); ++i) {
        const bool same = std::memcmp(&a[i], &b[i], sizeof(float)) == 0 || (std::isnan(a[i]) && std::isnan(b[i]));
        require(same, what + " changes element " + std::to_string(i) + ": " + std::to_string(a[i]) + " and " +
                          std::to_string(b[i]));
    }
}

/// `n` floats in a block of their own.
std::vector<float> decoded(dtype type, std::span<const std::byte> blocks, std::size_t n, detail::simd_level level) {
    auto out = std::make_unique<float[]>(n);
    dequantize(type, blocks, std::span(out.get(), n), level);
    return {out.get(), out.get() + n};
}

void check_numbers(byte_source& from, const dtype_traits& traits, std::size_t blocks, const std::string& bytes) {
    const exact_bytes in(bytes, from.size(0, 7));
    const std::size_t n = blocks * traits.block_elements;
    const std::string name(traits.name);
    const auto whole = decoded(traits.type, in.span(), n, detail::simd_level::portable);
    for (const detail::simd_level level : detail::all_simd_levels)
        if (level <= detail::detected_simd_level())
            require_same(whole, decoded(traits.type, in.span(), n, level), name + ": the level of vector code");
    const std::size_t first = from.size(0, blocks), count = from.size(0, blocks - first);
    const exact_bytes part(bytes.substr(first * traits.block_bytes, count * traits.block_bytes), from.size(0, 7));
    const auto piece = decoded(traits.type, part.span(), count * traits.block_elements, detail::active_simd_level());
    require_same(std::span(whole).subspan(first * traits.block_elements, piece.size()), piece, name + ": a piece");
    if (!can_quantize(traits.type)) return;
    auto encoded = std::make_unique<std::byte[]>(bytes.size());
    (void)quantize(traits.type, whole, std::span(encoded.get(), bytes.size()));
    (void)decoded(traits.type, std::span<const std::byte>(encoded.get(), bytes.size()), n, detail::active_simd_level());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    byte_source from(data, size);
    const dtype_traits& traits = from.pick(detail::dtype_table);
    const int wrong = from.one_in(8) ? (from.one_in(2) ? 1 : -1) : 0;
    const std::size_t blocks = from.size(0, 40);
    std::string bytes = from.take(blocks * traits.block_bytes);
    bytes.resize(blocks * traits.block_bytes, '\x35');
    if (wrong != 0) {  // one element more or less than the blocks hold
        const std::size_t n = blocks * traits.block_elements;
        std::vector<float> out(wrong < 0 && n == 0 ? 1 : n + static_cast<std::size_t>(wrong));
        const exact_bytes in(bytes, 0);
        const bool taken = attempt([&] {
            if (traits.kind == dtype_kind::integer) return dequantize_integers(traits.type, in.span(), out);
            dequantize(traits.type, in.span(), out);
        });
        require(!taken, std::string(traits.name) + ": a wrong number of elements is taken");
    } else if (traits.kind == dtype_kind::integer) {
        auto out = std::make_unique<float[]>(blocks * traits.block_elements);
        const exact_bytes in(bytes, from.size(0, 7));
        dequantize_integers(traits.type, in.span(), std::span(out.get(), blocks * traits.block_elements));
    } else {
        check_numbers(from, traits, blocks, bytes);
    }
    return 0;
}
