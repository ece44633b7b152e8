// SPDX-License-Identifier: Apache-2.0
#include <larql/ggml_blocks.hpp>
#include <larql/gguf.hpp>
#include <larql/safetensors.hpp>

#include <doctest/doctest.h>
#include <support/random.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using larql::dequantize;
using larql::dtype;
using larql::dtype_kind;
using larql::errc;
using larql::quantize;
using larql::detail::simd_level;

namespace {

const std::filesystem::path data = std::filesystem::path(LARQL_TEST_DATA) / "ggml_types";

/// The levels that this machine can run; says which it cannot.
std::vector<simd_level> runnable_levels() {
    std::vector<simd_level> levels;
    for (const simd_level level : larql::detail::all_simd_levels) {
        if (level <= larql::detail::detected_simd_level())
            levels.push_back(level);
        else
            MESSAGE("skipped, as this processor has no " << std::string(to_string(level)));
    }
    return levels;
}

/// How many values differ in a bit; a NaN equals any NaN.
std::size_t differences(std::span<const float> a, std::span<const float> b) {
    if (a.size() != b.size()) return a.size() + b.size();
    std::size_t n = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const bool same = std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i]);
        n += same || (std::isnan(a[i]) && std::isnan(b[i])) ? 0U : 1U;
    }
    return n;
}

template <class T>
std::vector<T> values_of(const larql::safetensors_file& file, const std::string& name) {
    const std::span<const std::byte> bytes = file.bytes(file.at_tensor(name));
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
}

std::vector<dtype> types_of_kind(bool integers) {
    std::vector<dtype> types;
    for (const larql::dtype_traits& row : larql::detail::dtype_table)
        if ((row.kind == dtype_kind::integer) == integers) types.push_back(row.type);
    return types;
}

std::size_t size_bytes(dtype type, std::size_t count) {
    return count / traits_of(type).block_elements * traits_of(type).block_bytes;
}

std::vector<std::byte> random_bytes(std::size_t count, std::uint64_t seed) {
    larql::testing::random_source random(seed);
    std::vector<std::byte> out(count);
    for (std::byte& b : out) b = static_cast<std::byte>(random.bits() >> 56);
    return out;
}

std::vector<float> decoded(dtype type, std::span<const std::byte> blocks, std::size_t count,
                           simd_level level = larql::detail::active_simd_level()) {
    std::vector<float> out(count, -1.0F);
    dequantize(type, blocks, out, level);
    return out;
}

errc code_of(auto&& f) {
    try {
        f();
    } catch (const larql::error& e) {
        CHECK(std::string_view(e.what()).find('\n') == std::string_view::npos);
        return e.code();
    }
    FAIL("no error");
    return errc::io;
}

double rmse(std::span<const float> a, std::span<const float> b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return std::sqrt(sum / static_cast<double>(a.size()));
}

}  // namespace

TEST_CASE("ggml_blocks: decodes a tensor of every ggml type bit for bit as ggml does, at every level") {
    const auto file = larql::gguf_file::open(data / "ggml_types.gguf");
    const auto expected = larql::safetensors_file::open(data / "ggml_types.expected.safetensors");
    REQUIRE(file.tensors().size() == expected.tensors().size());
    for (const simd_level level : runnable_levels())
        for (const larql::tensor_info& info : file.tensors()) {
            CAPTURE(info.name);
            CAPTURE(to_string(level));
            std::vector<float> got(info.element_count());
            if (traits_of(info.type).kind == dtype_kind::integer)
                larql::dequantize_integers(info.type, file.bytes(info), got);
            else
                dequantize(info.type, file.bytes(info), got, level);
            CHECK(differences(got, values_of<float>(expected, std::string(info.name))) == 0);
        }
}

TEST_CASE("ggml_blocks: decodes random bytes and special scales bit for bit as ggml does, at every level") {
    const auto file = larql::safetensors_file::open(data / "ggml_random.safetensors");
    std::size_t formats = 0;
    for (const dtype type : types_of_kind(false)) {
        const std::string name(to_string(type));
        if (file.find_tensor(name + ".blocks") == nullptr) continue;
        ++formats;
        const auto blocks = values_of<std::byte>(file, name + ".blocks");
        const auto values = values_of<float>(file, name + ".values");
        for (const simd_level level : runnable_levels()) {
            CAPTURE(name);
            CAPTURE(to_string(level));
            CHECK(differences(decoded(type, blocks, values.size(), level), values) == 0);
        }
    }
    CHECK(formats == 28);
}

TEST_CASE("ggml_blocks: all levels agree on random bytes, whatever the alignment and the number of blocks") {
    for (const dtype type : types_of_kind(false)) {
        const std::size_t block = traits_of(type).block_elements;
        for (const std::size_t blocks : {std::size_t{0}, std::size_t{1}, std::size_t{7}, 4160 / block + 1}) {
            CAPTURE(to_string(type));
            CAPTURE(blocks);
            const std::size_t count = blocks * block;
            const std::size_t bytes = size_bytes(type, count);
            const std::vector<std::byte> source = random_bytes(bytes + 3, blocks + 99);
            for (const std::size_t shift : {0U, 1U, 3U}) {
                const auto at = std::span(source).subspan(shift, bytes);
                const auto portable = decoded(type, at, count, simd_level::portable);
                for (const simd_level level : runnable_levels())
                    CHECK(differences(decoded(type, at, count, level), portable) == 0);
            }
        }
    }
}

TEST_CASE("ggml_blocks: streaming past the caches gives the same, for any alignment and length") {
    const dtype types[] = {dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_k, dtype::f4_e2m1};
    for (const dtype type : types)
        for (const std::size_t blocks : {1U, 2U, 5U, 17U, 100U})
            for (const std::size_t shift : {0U, 1U, 4U, 13U}) {
                const std::size_t count = blocks * traits_of(type).block_elements;
                const auto bytes = random_bytes(size_bytes(type, count), blocks);
                std::vector<float> plain(count), streamed(count + shift + 1, 77.0F);
                dequantize(type, bytes, plain);
                larql::detail::decode_run(larql::detail::find_decoder(type), traits_of(type), bytes.data(),
                                          streamed.data() + shift, count, larql::detail::detected_simd_level(), 0);
                CHECK(differences(std::span(streamed).subspan(shift, count), plain) == 0);
                CHECK(streamed.back() == 77.0F);
                if (shift != 0) CHECK(streamed[shift - 1] == 77.0F);
            }
}

TEST_CASE("ggml_blocks: Q8_1 is a scale times signed bytes; its sum is not read") {
    std::vector<std::byte> block = random_bytes(36, 1);
    const std::uint16_t scale = larql::float_to_f16(0.375F);
    std::memcpy(block.data(), &scale, 2);
    const auto values = decoded(dtype::q8_1, block, 32);
    for (std::size_t i = 0; i < 32; ++i)
        CHECK(values[i] == 0.375F * static_cast<float>(static_cast<std::int8_t>(block[4 + i])));
}

TEST_CASE("ggml_blocks: the 8-bit and 4-bit floats of safetensors take every code, at every level") {
    std::vector<std::byte> all(256);
    for (std::size_t i = 0; i < 256; ++i) all[i] = static_cast<std::byte>(i);
    std::vector<float> e4m3, e5m2, e8m0, e2m1;
    for (unsigned i = 0; i < 256; ++i) {
        e4m3.push_back(larql::f8_e4m3_to_float(static_cast<std::uint8_t>(i)));
        e5m2.push_back(larql::f8_e5m2_to_float(static_cast<std::uint8_t>(i)));
        e8m0.push_back(larql::f8_e8m0_to_float(static_cast<std::uint8_t>(i)));
        e2m1.push_back(larql::f4_e2m1_to_float(static_cast<std::uint8_t>(i & 15)));
        e2m1.push_back(larql::f4_e2m1_to_float(static_cast<std::uint8_t>(i >> 4)));
    }
    for (const simd_level level : runnable_levels()) {
        CHECK(differences(decoded(dtype::f8_e4m3, all, 256, level), e4m3) == 0);
        CHECK(differences(decoded(dtype::f8_e5m2, all, 256, level), e5m2) == 0);
        CHECK(differences(decoded(dtype::f8_e8m0, all, 256, level), e8m0) == 0);
        CHECK(differences(decoded(dtype::f4_e2m1, all, 512, level), e2m1) == 0);
    }
    CHECK(e4m3[0x7e] == 448.0F);  // the largest numbers, from the OCP specification
    CHECK(e5m2[0x7b] == 57344.0F);
    CHECK(e8m0[0] == 0x1p-127F);
    CHECK(e2m1[0] == 0.0F);
    CHECK(e2m1[2 * 0x72] == 1.0F);  // low nibble first
    CHECK(e2m1[2 * 0x72 + 1] == 6.0F);
}

TEST_CASE("ggml_blocks: every f16 and bf16 decodes as its scalar conversion, at every level") {
    std::vector<std::uint16_t> all(65536);
    std::vector<float> half(65536), brain(65536);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::uint16_t>(i);
        half[i] = larql::f16_to_float(all[i]);
        brain[i] = larql::bf16_to_float(all[i]);
    }
    for (const simd_level level : runnable_levels()) {
        CHECK(differences(decoded(dtype::f16, std::as_bytes(std::span(all)), 65536, level), half) == 0);
        CHECK(differences(decoded(dtype::bf16, std::as_bytes(std::span(all)), 65536, level), brain) == 0);
    }
}

TEST_CASE("ggml_blocks: sizes that disagree are refused with both numbers") {
    std::vector<float> out(256);
    for (const dtype type : types_of_kind(false)) {
        CAPTURE(to_string(type));
        const std::size_t bytes = size_bytes(type, 256);
        const std::vector<std::byte> blocks(bytes + traits_of(type).block_bytes);
        const auto with = [&](std::size_t n, std::size_t elements) {
            return [&, n, elements] { dequantize(type, std::span(blocks).first(n), std::span(out).first(elements)); };
        };
        CHECK(code_of(with(bytes - 1, 256)) == errc::shape_mismatch);
        CHECK(code_of(with(bytes + 1, 256)) == errc::shape_mismatch);
        CHECK(code_of(with(blocks.size(), 256)) == errc::shape_mismatch);
        CHECK(code_of(with(0, 256)) == errc::shape_mismatch);
        if (traits_of(type).block_elements > 1) CHECK(code_of(with(bytes, 255)) == errc::shape_mismatch);
        CHECK_NOTHROW(with(0, 0)());
        CHECK_NOTHROW(with(bytes, 256)());
    }
    const std::vector<std::byte> blocks(143);
    CHECK_THROWS_WITH(dequantize(dtype::q4_k, blocks, out), "Q4_K: 256 elements take 1 x 144 bytes, got 143");
    CHECK_THROWS_WITH(dequantize(dtype::q4_k, blocks, std::span(out).first(255)),
                      "Q4_K: 255 elements are not a multiple of its block of 256");
}

TEST_CASE("ggml_blocks: integers become float only when asked for") {
    std::vector<float> out(3);
    for (const dtype type : types_of_kind(true)) {
        const std::vector<std::byte> zeros(3 * traits_of(type).block_bytes);
        CHECK(code_of([&] { dequantize(type, zeros, out); }) == errc::unsupported_dtype);
        CHECK_NOTHROW(larql::dequantize_integers(type, zeros, out));
        CHECK(code_of([&] { larql::dequantize_integers(type, std::span(zeros).first(2), out); }) ==
              errc::shape_mismatch);
    }
    for (const dtype type : types_of_kind(false))
        CHECK(code_of([&] { larql::dequantize_integers(type, {}, {}); }) == errc::unsupported_dtype);
}

TEST_CASE("ggml_blocks: integers of every width become the nearest float") {
    const auto converted = [](dtype type, const auto& values) {
        std::vector<float> out(std::size(values));
        larql::dequantize_integers(type, std::as_bytes(std::span(values)), out);
        return out;
    };
    using floats = std::vector<float>;
    CHECK(converted(dtype::i8, std::vector<std::int8_t>{-128, 127}) == floats{-128, 127});
    CHECK(converted(dtype::u8, std::vector<std::uint8_t>{0, 255}) == floats{0, 255});
    CHECK(converted(dtype::i16, std::vector<std::int16_t>{-32768, 5}) == floats{-32768, 5});
    CHECK(converted(dtype::u16, std::vector<std::uint16_t>{65535}) == floats{65535});
    CHECK(converted(dtype::i32, std::vector<std::int32_t>{-16777217, 16777219}) == floats{-16777216, 16777220});
    CHECK(converted(dtype::u32, std::vector<std::uint32_t>{0xffffffffU}) == floats{0x1p32F});
    CHECK(converted(dtype::i64, std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min()}) ==
          floats{-0x1p63F});
    CHECK(converted(dtype::u64, std::vector<std::uint64_t>{~std::uint64_t{0}}) == floats{0x1p64F});
    CHECK(converted(dtype::boolean, std::vector<std::uint8_t>{0, 1, 2}) == floats{0, 1, 1});
}

TEST_CASE("ggml_blocks: encodes Q8_0 and Q4_0 bit for bit as ggml's reference, at every level") {
    const auto file = larql::safetensors_file::open(data / "ggml_random.safetensors");
    const auto input = values_of<float>(file, "quantize.input");
    for (const dtype type : {dtype::q8_0, dtype::q4_0}) {
        const auto expected = values_of<std::byte>(file, "quantize." + std::string(to_string(type)));
        for (const simd_level level : runnable_levels()) {
            std::vector<std::byte> got(size_bytes(type, input.size()));
            quantize(type, input, got, level);
            CAPTURE(to_string(type));
            CAPTURE(to_string(level));
            CHECK(got == expected);
        }
    }
}

TEST_CASE("ggml_blocks: Q4_K and Q6_K lose no more of normal numbers than ggml's reference") {
    const auto file = larql::safetensors_file::open(data / "ggml_random.safetensors");
    const auto input = values_of<float>(file, "normal.input");
    for (const dtype type : {dtype::q4_k, dtype::q6_k}) {
        const auto reference = values_of<std::byte>(file, "normal." + std::string(to_string(type)));
        std::vector<std::byte> ours(reference.size());
        CHECK(quantize(type, input, ours).overflowed == 0);
        const double got = rmse(decoded(type, ours, input.size()), input);
        const double allowed = rmse(decoded(type, reference, input.size()), input);
        CAPTURE(to_string(type));
        CHECK(got > 0.0);
        CHECK(got <= allowed);
    }
}

TEST_CASE("ggml_blocks: Q4_K and Q6_K keep what fits their steps, constants, zeros and small numbers") {
    for (const dtype type : {dtype::q4_k, dtype::q6_k}) {
        CAPTURE(to_string(type));
        std::vector<std::byte> blocks(size_bytes(type, 512));
        const std::vector<float> zeros(512, 0.0F);
        quantize(type, zeros, blocks);
        CHECK(decoded(type, blocks, 512) == zeros);
        // Multiples of 1/4 from -2 on: 16 levels, which also lie on the steps of Q6_K.
        std::vector<float> steps(512);
        for (std::size_t i = 0; i < steps.size(); ++i) steps[i] = -2.0F + 0.25F * static_cast<float>(i * 7 % 16);
        quantize(type, steps, blocks);
        // Scale and minimum have 6 bits or more and an f16 factor: 2 levels of 2^-11 each, times 15 steps.
        CHECK(rmse(decoded(type, blocks, 512), steps) <= 0.25 * 15 * 0x1p-10);
        const std::vector<float> constant(512, -0.7F);
        quantize(type, constant, blocks);
        CHECK(rmse(decoded(type, blocks, 512), constant) <= 0.7 * 0x1p-10);
        std::vector<float> tiny(512, 1e-30F);  // far below what an f16 scale can hold
        quantize(type, tiny, blocks);
        CHECK(decoded(type, blocks, 512) == zeros);
    }
}

TEST_CASE("ggml_blocks: F16 and BF16 round to nearest even, keep NaN and count overflow, at every level") {
    larql::testing::random_source random(3);
    std::vector<float> in = {0.0F,
                             -0.0F,
                             1.0F + 0x1p-11F,
                             1.0F + 3 * 0x1p-11F,
                             65519.9F,
                             65520.0F,
                             -1e30F,
                             0x1p-24F,
                             0x1p-25F,
                             std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::max(),
                             std::bit_cast<float>(0x7f7f7fffU),
                             std::bit_cast<float>(0x7f7f8000U),
                             std::bit_cast<float>(0x7f800001U)};
    while (in.size() < 5003) in.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random.bits())));
    for (const dtype type : {dtype::f16, dtype::bf16}) {
        const auto narrow = [type](float x) {
            return type == dtype::f16 ? larql::float_to_f16(x) : larql::float_to_bf16(x);
        };
        const unsigned infinity = type == dtype::f16 ? 0x7c00U : 0x7f80U;
        std::uint64_t overflowed = 0;
        for (const float x : in) overflowed += std::isfinite(x) && (narrow(x) & 0x7fffU) == infinity ? 1U : 0U;
        for (const simd_level level : runnable_levels()) {
            std::vector<std::uint16_t> out(in.size());
            const auto report = quantize(type, in, std::as_writable_bytes(std::span(out)), level);
            CHECK(report.overflowed == overflowed);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < in.size(); ++i) wrong += out[i] != narrow(in[i]) ? 1U : 0U;
            CHECK(wrong == 0);
        }
    }
    const std::vector<float> few = {65519.9F, 65520.0F, -1e30F, std::numeric_limits<float>::infinity()};
    std::vector<std::byte> out(8);
    CHECK(quantize(dtype::f16, few, out).overflowed == 2);
    CHECK(quantize(dtype::bf16, few, out).overflowed == 0);
}

TEST_CASE("ggml_blocks: a block with a NaN or an infinity becomes NaN, one beyond f16 is counted as overflowed") {
    for (const dtype type : {dtype::q8_0, dtype::q4_0, dtype::q4_k, dtype::q6_k}) {
        const std::size_t block = traits_of(type).block_elements;
        std::vector<std::byte> out(3 * traits_of(type).block_bytes);
        for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e38F})
            for (const simd_level level : runnable_levels()) {
                std::vector<float> in(3 * block, 1.0F);
                in[block + 5] = odd;
                CAPTURE(to_string(type));
                CAPTURE(odd);
                const std::uint64_t lost = quantize(type, in, out, level).overflowed;
                CHECK(lost == (std::isfinite(odd) ? block : block - 1));
                const auto back = decoded(type, out, in.size());
                for (std::size_t i = 0; i < back.size(); ++i) CHECK(std::isfinite(back[i]) == (i / block != 1));
                if (!std::isfinite(odd)) CHECK(std::isnan(back[block]));
            }
    }
}

TEST_CASE("ggml_blocks: encoding refuses other formats and sizes that disagree; F32 is a copy") {
    std::vector<float> in(256, 1.5F);
    for (const larql::dtype_traits& row : larql::detail::dtype_table) {
        CAPTURE(row.name);
        std::vector<std::byte> out(size_bytes(row.type, 256));
        const bool written = row.type == dtype::f32 || row.type == dtype::f16 || row.type == dtype::bf16 ||
                             row.type == dtype::q8_0 || row.type == dtype::q4_0 || row.type == dtype::q4_k ||
                             row.type == dtype::q6_k;
        CHECK(larql::can_quantize(row.type) == written);
        if (!written) {
            CHECK(code_of([&] { quantize(row.type, in, out); }) == errc::unsupported_dtype);
            continue;
        }
        CHECK_NOTHROW(quantize(row.type, in, out));
        CHECK_NOTHROW(quantize(row.type, {}, {}));
        CHECK(code_of([&] { quantize(row.type, in, std::span(out).first(out.size() - 1)); }) == errc::shape_mismatch);
    }
    std::vector<std::byte> out(1024);
    quantize(dtype::f32, in, out);
    CHECK(std::memcmp(out.data(), in.data(), 1024) == 0);
}
