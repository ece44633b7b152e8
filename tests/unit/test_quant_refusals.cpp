// SPDX-License-Identifier: Apache-2.0
//
// What weight_reader must not read: unknown schemes, parts that disagree, and what only a configuration could tell.
#include <larql/detail/io/json.hpp>
#include <larql/weight_reader.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/random.hpp>
#include <support/safetensors_builder.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using larql::errc;
using larql::quantization_config;
using larql::safetensors_file;
using larql::weight_reader;
namespace testing = larql::testing;

namespace {

quantization_config config(std::string_view text) {
    return quantization_config::parse(larql::detail::parse_json(text, {}));
}

std::string zeros(std::size_t count) { return std::string(count, '\0'); }

/// A checkpoint of a few tensors of zeros, and its reader.
class checkpoint {
public:
    explicit checkpoint(std::string_view config_text = "null") : m_config(config(config_text)) {}

    checkpoint& add(std::string_view name, std::string_view dtype, std::string_view shape, std::size_t bytes) {
        return add(name, dtype, shape, zeros(bytes));
    }
    checkpoint& add(std::string_view name, std::string_view dtype, std::string_view shape, const std::string& data) {
        m_builder.tensor(name, dtype, shape, data);
        return *this;
    }
    larql::weight at(std::string_view name) {
        if (!m_file) {
            m_file.emplace(safetensors_file::open(testing::write_file(m_folder / "a.safetensors", m_builder.build())));
            m_reader.emplace(*m_file, m_config);
        }
        return m_reader->at(name);
    }

private:
    testing::temporary_folder m_folder{};
    quantization_config m_config;
    testing::safetensors_builder m_builder{};
    std::optional<safetensors_file> m_file{};
    std::optional<weight_reader> m_reader{};
};

constexpr std::string_view fp8_128 = R"({"quant_method":"fp8","weight_block_size":[128,128]})";
constexpr std::string_view gptq_4 = R"({"quant_method":"gptq","bits":4,"group_size":32})";
constexpr std::string_view awq_4 = R"({"quant_method":"awq","bits":4,"group_size":32,"version":"gemm"})";
constexpr std::string_view packed_4 =
    R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":
    {"weights":{"num_bits":4,"group_size":32,"symmetric":true,"strategy":"group"}}}})";

std::string numbers(std::initializer_list<std::int64_t> values) {
    std::string out;
    for (const std::int64_t v : values) out += testing::le(v);
    return out;
}

}  // namespace

TEST_CASE("weight_reader: quantisation methods that it does not know are refused by name") {
    for (const char* method : {"bitsandbytes", "hqq", "eetq", "quanto", "vptq", "aqlm", "quark", "bitnet", "torchao",
                               "mlx", "something-new"}) {
        const std::string text = std::string(R"({"quant_method":")") + method + "\"}";
        checkpoint c(text);
        c.add("a.weight", "U8", "[4,4]", 16)
            .add("b.weight", "F8_E4M3", "[4,4]", 16)
            .add("b.weight_scale", "F32", "[1]", 4);
        c.add("c.weight", "I8", "[4,4]", 16).add("d.weight", "I32", "[4,4]", 64).add("norm.weight", "BF16", "[4]", 8);
        for (const char* name : {"a.weight", "b.weight", "c.weight", "d.weight", "absent.weight"})
            LARQL_CHECK_ERROR(c.at(name), errc::unsupported_dtype, std::string("quant_method \"") + method + "\"");
        CHECK(c.at("norm.weight").raw() != nullptr);  // what is stored plainly stays readable
    }
}

TEST_CASE("weight_reader: tensors of foreign schemes are recognised without a configuration") {
    const std::pair<const char*, const char*> parts[] = {
        {"a.weight.absmax", "bitsandbytes"},
        {"a.SCB", "LLM.int8"},
        {"a.W_q", "HQQ"},
        {"a.weight_scales", "EETQ"},
        {"a.weight._data", "quanto"},
        {"a.codebooks", "AQLM"},
        {"a.centroids", "VPTQ"},
        {"a.weight.bitmask", "bitmask"},
    };
    for (const auto& [part, scheme] : parts) {
        checkpoint stored;
        stored.add("a.weight", "U8", "[4,4]", 16).add(part, "F32", "[1]", 4);
        LARQL_CHECK_ERROR(stored.at("a.weight"), errc::unsupported_dtype, scheme);
        checkpoint absent;
        absent.add(part, "F32", "[1]", 4);
        LARQL_CHECK_ERROR(absent.at("a.weight"), errc::unsupported_dtype, scheme);
    }
    checkpoint smoothed(R"({"quant_method":"modelopt","quant_algo":"NVFP4"})");
    smoothed.add("a.weight", "U8", "[4,16]", 64).add("a.weight_scale", "F8_E4M3", "[4,2]", 8);
    smoothed.add("a.weight_scale_2", "F32", "[]", 4).add("a.pre_quant_scale", "F32", "[32]", 128);
    LARQL_CHECK_ERROR(smoothed.at("a.weight"), errc::unsupported_dtype, "pre_quant_scale");
}

TEST_CASE("weight_reader: formats and variants of a known method are refused by name") {
    for (const char* format : {"marlin-24", "sparse-24-bitmask", "mxfp6-pack-quantized"}) {
        checkpoint c(std::string(R"({"quant_method":"compressed-tensors","format":")") + format + "\"}");
        c.add("a.weight_packed", "I32", "[4,4]", 64).add("a.weight_scale", "F32", "[4,1]", 16);
        LARQL_CHECK_ERROR(c.at("a.weight"), errc::unsupported_dtype, std::string("format \"") + format + "\"");
    }
    checkpoint rotated(R"({"quant_method":"compressed-tensors","transform_config":{"config_groups":{"u":{}}}})");
    rotated.add("a.weight", "F8_E4M3", "[4,4]", 16).add("a.weight_scale", "F32", "[1]", 4);
    LARQL_CHECK_ERROR(rotated.at("a.weight"), errc::unsupported_dtype, "transform_config");
    checkpoint algorithm(R"({"quant_method":"modelopt","quant_algo":"W4A8_AWQ"})");
    algorithm.add("a.weight", "U8", "[4,4]", 16).add("a.weight_scale", "F32", "[4]", 16);
    LARQL_CHECK_ERROR(algorithm.at("a.weight"), errc::unsupported_dtype, "quant_algo \"W4A8_AWQ\"");
    const std::pair<const char*, const char*> variants[] = {
        {R"({"quant_method":"awq","bits":4,"group_size":32,"version":"gemv"})", "AWQ version \"gemv\""},
        {R"({"quant_method":"gptq","bits":4,"group_size":32,"checkpoint_format":"marlin"})", "\"marlin\""},
        {R"({"quant_method":"gptq","bits":3,"group_size":32})", "gptq with 3 bits"},
        {R"({"quant_method":"awq","bits":8,"group_size":32})", "awq with 8 bits"},
        {"null", "expected quant_method \"awq\", \"gptq\" or \"auto-round\""},
    };
    for (const auto& [text, message] : variants) {
        checkpoint c(text);
        c.add("a.qweight", "I32", "[32,1]", 128).add("a.qzeros", "I32", "[1,1]", 4).add("a.scales", "F16", "[1,8]", 16);
        LARQL_CHECK_ERROR(c.at("a.weight"), errc::unsupported_dtype, message);
    }
}

TEST_CASE("weight_reader: codes without a scale are refused where a configuration says that they have one") {
    checkpoint scaled(fp8_128);
    scaled.add("a.weight", "F8_E4M3", "[4,4]", 16).add("i.weight", "I8", "[4,4]", 16).add("f.weight", "F4", "[4,4]", 8);
    scaled.add("experts.up", "F8_E5M2", "[2,4,4]", 32).add("w.weight", "I32", "[4,4]", 64);
    for (const char* name : {"a.weight", "i.weight", "f.weight", "experts.up", "w.weight"})
        LARQL_CHECK_ERROR(scaled.at(name), errc::unsupported_dtype,
                          "without a scale tensor, under quant_method \"fp8\"");
    checkpoint plain;
    plain.add("a.weight", "F8_E4M3", "[1,2]", "\x38\xc0");
    float out[2];
    plain.at("a.weight").read_rows(0, 1, out, 2);
    CHECK(out[0] == 1.0F);
    CHECK(out[1] == -2.0F);
    checkpoint half(fp8_128);
    half.add("a.weight", "BF16", "[4,4]", 32).add("a.weight_scale_inv", "F32", "[1,1]", 4);
    LARQL_CHECK_ERROR(half.at("a.weight"), errc::unsupported_dtype, "stored as BF16");
    checkpoint twice(fp8_128);
    twice.add("a.weight", "F8_E4M3", "[4,4]", 16).add("a.weight_scale_inv", "F32", "[1,1]", 4);
    twice.add("a.weight_scale", "F32", "[1]", 4);
    LARQL_CHECK_ERROR(twice.at("a.weight"), errc::bad_value, "a.weight_scale_inv");
    checkpoint typed(fp8_128);
    typed.add("a.weight", "F8_E4M3", "[4,4]", 16).add("a.weight_scale_inv", "I32", "[1,1]", 4);
    LARQL_CHECK_ERROR(typed.at("a.weight"), errc::unsupported_dtype, "is I32, expected F32 or BF16");
    checkpoint fine(fp8_128);  // an e4m3 scale means NVFP4, whose codes are not FP8
    fine.add("a.weight", "F8_E4M3", "[4,4]", 16).add("a.weight_scale_inv", "F8_E4M3", "[1,1]", 1);
    LARQL_CHECK_ERROR(fine.at("a.weight"), errc::unsupported_dtype, "is F8_E4M3, expected");
}

TEST_CASE("weight_reader: scale grids are ceil-divided and never scaled to fit") {
    // kv_a of DeepSeek-V3: 576 rows are 4.5 blocks.
    const auto with_scale = [](std::string_view text, std::string_view shape, std::size_t scales) {
        checkpoint c(text);
        c.add("kv_a.weight", "F8_E4M3", "[576,256]", 576 * 256).add("kv_a.weight_scale_inv", "F32", shape, scales * 4);
        return testing::error_of([&] { return c.at("kv_a.weight"); });
    };
    CHECK(with_scale(fp8_128, "[5,2]", 10) == "no error");
    const std::pair<const char*, std::size_t> wrong[] = {{"[4,2]", 8}, {"[5,3]", 15}, {"[576,1]", 576},
                                                         {"[1]", 1},   {"[2,5]", 10}, {"[1,5,2]", 10}};
    for (const auto& [shape, count] : wrong) {
        const std::string found = with_scale(fp8_128, shape, count);
        CHECK_MESSAGE(testing::is_error(found, errc::shape_mismatch, "[576, 256]"), found);
    }
    CHECK(with_scale(fp8_128, "[4,2]", 8)
              .find("scales [4, 2] do not fit the weight [576, 256]: expected blocks of 128 x 128") !=
          std::string::npos);
    const std::string other = R"({"quant_method":"fp8","weight_block_size":[32,32]})";
    CHECK(with_scale(other, "[18,8]", 144) == "no error");
    CHECK(testing::is_error(with_scale(other, "[5,2]", 10), errc::shape_mismatch, "32 x 32"));
}

TEST_CASE("weight_reader: without a configuration a block size must follow from the shapes alone") {
    const auto found = [](std::string_view weight, std::size_t bytes, std::string_view scale, std::size_t scales) {
        checkpoint c;
        c.add("a.weight", "F8_E4M3", weight, bytes).add("a.weight_scale_inv", "F32", scale, scales * 4);
        return testing::error_of([&] { return c.at("a.weight"); });
    };
    CHECK(found("[8,6]", 48, "[1,1]", 1) == "no error");
    CHECK(found("[8,6]", 48, "[8,1]", 8) == "no error");
    CHECK(found("[8,6]", 48, "[4,3]", 12) == "no error");  // 2 x 2 is the only way
    CHECK(testing::is_error(found("[8,6]", 48, "[2,3]", 6), errc::missing_key, "weight_block_size"));  // 4 to 7 rows
    CHECK(testing::is_error(found("[576,256]", 576 * 256, "[5,2]", 10), errc::missing_key, "several block sizes"));
    CHECK(testing::is_error(found("[8,6]", 48, "[9,1]", 9), errc::shape_mismatch, "at most one scale per element"));
    CHECK(testing::is_error(found("[8,6]", 48, "[0,1]", 0), errc::shape_mismatch, "[0, 1]"));
}

TEST_CASE("weight_reader: parts of packed integers that disagree are refused with both numbers") {
    const auto found = [](std::string_view text, std::string_view words, std::size_t count, const std::string& shape,
                          std::string_view scale, std::size_t scales) {
        checkpoint c(text);
        c.add("a.weight_packed", "I32", words, count * 4).add("a.weight_scale", "F32", scale, scales * 4);
        c.add("a.weight_shape", "I64", "[" + std::to_string(shape.size() / 8) + "]", shape);
        return testing::error_of([&] { return c.at("a.weight"); });
    };
    const std::string good = numbers({3, 64});
    CHECK(found(packed_4, "[3,8]", 24, good, "[3,2]", 6) == "no error");
    CHECK(found("null", "[3,8]", 24, good, "[3,1]", 3) == "no error");
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, numbers({4, 64}), "[3,2]", 6), errc::shape_mismatch,
                            "dimension 0 is 4, but a.weight_packed is [3, 8]"));
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, numbers({3, 65}), "[3,2]", 6), errc::shape_mismatch,
                            "words of 65 codes of 4 bits, got 8"));
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, numbers({3, -1}), "[3,2]", 6), errc::shape_mismatch,
                            "dimension 1 is 18446744073709551615"));
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, numbers({3}), "[3,2]", 6), errc::shape_mismatch, "got [1]"));
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, good, "[3,3]", 9), errc::shape_mismatch,
                            "scales [3, 3] do not fit the weight [3, 64]"));
    CHECK(testing::is_error(found(packed_4, "[3,8]", 24, good, "[3,1]", 3), errc::shape_mismatch, "1 x 32"));
    CHECK(testing::is_error(found("null", "[3,8]", 24, good, "[3,2]", 6), errc::missing_key, "weight_block_size"));
    CHECK(
        testing::is_error(found("null", "[3,1]", 3, numbers({3, 4}), "[3,1]", 3), errc::bad_value, "fit 2 and 4 bits"));
    CHECK(testing::is_error(
        found(R"({"quant_method":"compressed-tensors","config_groups":{"g":{"weights":{"num_bits":3}}}})", "[3,6]", 18,
              good, "[3,1]", 3),
        errc::unsupported_dtype, "3 bits"));
}

TEST_CASE("weight_reader: missing and misplaced parts of packed weights are named") {
    checkpoint shapeless(packed_4);
    shapeless.add("a.weight_packed", "I32", "[3,8]", 96).add("a.weight_scale", "F32", "[3,2]", 24);
    LARQL_CHECK_ERROR(shapeless.at("a.weight"), errc::missing_tensor, "a.weight_shape: expected it beside the weight");
    checkpoint scaleless(packed_4);
    scaleless.add("a.weight_packed", "I32", "[3,8]", 96);
    LARQL_CHECK_ERROR(scaleless.at("a.weight"), errc::missing_tensor, "a.weight_scale");
    checkpoint floats(packed_4);
    floats.add("a.weight_packed", "F32", "[3,8]", 96);
    LARQL_CHECK_ERROR(floats.at("a.weight"), errc::unsupported_dtype, "is F32, expected U8 or I32");

    std::string asymmetric(packed_4);
    asymmetric.replace(asymmetric.find("true"), 4, "false");
    for (const bool packed : {false, true}) {
        checkpoint c(asymmetric);
        c.add("a.weight_packed", "I32", "[3,8]", 96).add("a.weight_scale", "F32", "[3,2]", 24);
        c.add("a.weight_shape", "I64", "[2]", numbers({3, 64}));
        if (packed) c.add("a.weight_zero_point", "I32", "[2,2]", 16);  // 3 rows of 4 bits fit one word
        if (packed)
            LARQL_CHECK_ERROR(c.at("a.weight"), errc::shape_mismatch, "expected [1, 2], got [2, 2]");
        else
            LARQL_CHECK_ERROR(c.at("a.weight"), errc::missing_tensor, "a.weight_zero_point");
    }

    checkpoint index(packed_4);
    index.add("a.weight_packed", "I32", "[3,8]", 96).add("a.weight_scale", "F32", "[3,2]", 24);
    index.add("a.weight_shape", "I64", "[2]", numbers({3, 64}));
    std::string groups;
    for (std::int32_t i = 0; i < 64; ++i) groups += testing::le(i == 63 ? 2 : i / 32);
    index.add("a.weight_g_idx", "I32", "[64]", groups);
    LARQL_CHECK_ERROR(index.at("a.weight"), errc::bad_value, "g_idx[63] is 2, expected a group below 2");
}

TEST_CASE("weight_reader: FP4 scales must cover 32 or 16 columns each, and NVFP4 needs its global scale") {
    constexpr std::string_view nvfp4 = R"({"quant_method":"modelopt","quant_algo":"NVFP4"})";
    checkpoint one(nvfp4);
    one.add("a.weight", "U8", "[4,16]", 64).add("a.weight_scale", "F8_E4M3", "[4,2]", 8);
    LARQL_CHECK_ERROR(one.at("a.weight"), errc::missing_tensor, "a.weight_scale_2");
    checkpoint grid(nvfp4);
    grid.add("a.weight", "U8", "[4,16]", 64)
        .add("a.weight_scale", "F8_E4M3", "[4,1]", 4)
        .add("a.weight_scale_2", "F32", "[]", 4);
    LARQL_CHECK_ERROR(grid.at("a.weight"), errc::shape_mismatch, "expected [4, 2], got [4, 1]");
    checkpoint factor(nvfp4);
    factor.add("a.weight", "U8", "[4,16]", 64).add("a.weight_scale", "F8_E4M3", "[4,2]", 8);
    factor.add("a.weight_scale_2", "F32", "[4]", 16);
    LARQL_CHECK_ERROR(factor.at("a.weight"), errc::shape_mismatch, "expected 1 or 1 numbers, got [4]");
    checkpoint integer(fp8_128);
    integer.add("a.weight", "I8", "[128,64]", 8192).add("a.scale", "F8_E8M0", "[1,1]", 1);  // INT8 has no ue8m0 scales
    LARQL_CHECK_ERROR(integer.at("a.weight"), errc::shape_mismatch, "expected [128, 4], got [1, 1]");
    checkpoint unsigned_codes(nvfp4);
    unsigned_codes.add("a.weight", "U8", "[4,16]", 64).add("a.weight_scale", "F32", "[4,2]", 32);
    LARQL_CHECK_ERROR(unsigned_codes.at("a.weight"), errc::unsupported_dtype,
                      "is F32, expected F8_E8M0 or U8 or F8_E4M3");

    constexpr std::string_view mxfp4 = R"({"quant_method":"mxfp4"})";
    checkpoint blocks(mxfp4);
    blocks.add("up_blocks", "U8", "[2,3,1,16]", 96).add("up_scales", "U8", "[2,3,2]", 12);
    LARQL_CHECK_ERROR(blocks.at("up"), errc::shape_mismatch, "expected [2, 3, 1], got [2, 3, 2]");
    checkpoint flat(mxfp4);
    flat.add("up_blocks", "U8", "[3,1,16]", 48).add("up_scales", "U8", "[3,1]", 3);
    LARQL_CHECK_ERROR(flat.at("up"), errc::shape_mismatch, "expected [experts, rows, blocks, 16], got [3, 1, 16]");
}

TEST_CASE("weight_reader: AWQ and GPTQ parts that disagree are refused with both numbers") {
    struct parts {
        std::string_view text, qweight, qzeros, scales;
        std::size_t words, zero_words, scale_count;
    };
    const auto found = [](const parts& p, std::size_t g_idx = 0, std::int32_t group = 0) {
        checkpoint c(p.text);
        c.add("a.qweight", "I32", p.qweight, p.words * 4).add("a.qzeros", "I32", p.qzeros, p.zero_words * 4);
        c.add("a.scales", "F16", p.scales, p.scale_count * 2);
        std::string groups;
        for (std::size_t i = 0; i < g_idx; ++i) groups += testing::le(group);
        if (g_idx != 0) c.add("a.g_idx", "I32", "[" + std::to_string(g_idx) + "]", groups);
        return testing::error_of([&] { return c.at("a.weight"); });
    };
    const parts gptq{gptq_4, "[8,16]", "[2,2]", "[2,16]", 128, 4, 32};  // 64 inputs, 16 outputs
    const parts awq{awq_4, "[64,2]", "[2,2]", "[2,16]", 128, 4, 32};
    CHECK(found(gptq) == "no error");
    CHECK(found(awq) == "no error");
    CHECK(found(gptq, 64, 1) == "no error");
    CHECK(testing::is_error(found(gptq, 63, 1), errc::shape_mismatch, "expected [64], got [63]"));
    CHECK(testing::is_error(found(gptq, 64, 2), errc::bad_value, "g_idx[0] is 2, expected a group below 2"));
    CHECK(testing::is_error(found(gptq, 64, -2), errc::bad_value, "g_idx[0] is -2"));
    parts wrong = gptq;
    wrong.scales = "[1,16]";
    wrong.scale_count = 16;
    CHECK(testing::is_error(found(wrong), errc::shape_mismatch, "a.scales: expected [2, 16], got [1, 16]"));
    wrong = awq;
    wrong.qzeros = "[2,1]";
    wrong.zero_words = 2;
    CHECK(testing::is_error(found(wrong), errc::shape_mismatch, "a.qzeros: expected [2, 2], got [2, 1]"));
    wrong = gptq;
    wrong.text = R"({"quant_method":"gptq","group_size":32})";
    CHECK(testing::is_error(found(wrong), errc::missing_key, "bits"));
    wrong.text = R"({"quant_method":"gptq","bits":4})";
    CHECK(testing::is_error(found(wrong), errc::missing_key, "group_size"));
    checkpoint missing(gptq_4);
    missing.add("a.qweight", "I32", "[8,16]", 512).add("a.scales", "F16", "[2,16]", 64);
    LARQL_CHECK_ERROR(missing.at("a.weight"), errc::missing_tensor, "a.qzeros");
}

TEST_CASE("weight_reader: parts of random types and shapes are refused or read, never out of bounds") {
    constexpr std::string_view configs[] = {"null",
                                            fp8_128,
                                            gptq_4,
                                            R"({"quant_method":"gptq","bits":2,"group_size":16,"sym":true})",
                                            R"({"quant_method":"auto-round","bits":8,"group_size":-1,"sym":false})",
                                            awq_4,
                                            packed_4,
                                            R"({"quant_method":"modelopt"})",
                                            R"({"quant_method":"fp8","weight_block_size":[3,2]})"};
    constexpr std::string_view parts[] = {"a.weight",        "a.weight_scale",   "a.weight_scale_inv",
                                          "a.weight_packed", "a.weight_shape",   "a.weight_zero_point",
                                          "a.weight_g_idx",  "a.weight_scale_2", "a.weight_global_scale",
                                          "a.scale",         "a.qweight",        "a.qzeros",
                                          "a.scales",        "a.g_idx",          "a.weight_blocks",
                                          "a.weight_scales"};
    constexpr larql::dtype types[] = {larql::dtype::f8_e4m3, larql::dtype::i8,     larql::dtype::u8,
                                      larql::dtype::i32,     larql::dtype::i64,    larql::dtype::f16,
                                      larql::dtype::f32,     larql::dtype::f8_e8m0};
    constexpr std::uint64_t extents[] = {0, 1, 2, 3, 4, 8, 16, 32, 33};
    testing::random_source random(11);
    std::size_t read = 0;
    for (int round = 0; round < 3000; ++round) {
        checkpoint c(configs[random.below(std::size(configs))]);
        for (const std::string_view part : parts) {
            if (random.below(3) != 0) continue;
            const auto& traits = larql::traits_of(types[random.below(std::size(types))]);
            std::string shape;
            std::size_t bytes = traits.block_bytes;
            for (std::size_t rank = random.below(5); rank > 0; --rank) {
                const std::uint64_t extent = extents[random.below(std::size(extents))];
                shape += (shape.empty() ? "" : ",") + std::to_string(extent);
                bytes *= static_cast<std::size_t>(extent);
            }
            std::string data(std::min<std::size_t>(bytes, 1U << 20), '\0');
            if (data.size() != bytes) continue;
            for (char& byte : data) byte = static_cast<char>(random.below(4) != 0 ? 0 : random.below(34));
            c.add(part, traits.safetensors_name, "[" + shape + "]", data);
        }
        try {
            const larql::weight w = c.at("a.weight");
            std::vector<float> out(static_cast<std::size_t>(w.rows() * w.columns()));
            w.read_rows(0, w.rows(), out.data(), static_cast<std::size_t>(w.columns()));
            ++read;
        } catch (const larql::error& e) {
            CHECK(std::string_view(e.what()).find('\n') == std::string_view::npos);
        }
    }
    CHECK(read > 100);
}

TEST_CASE("quantization_config: reads every dialect") {
    CHECK(config("null").method.empty());
    CHECK(config("{}").method.empty());
    CHECK(config(R"({"bits":4,"group_size":64})").method == "mlx");
    const quantization_config deepseek =
        config(R"({"quant_method":"fp8","weight_block_size":[128,64],"modules_to_not_convert":["lm_head"]})");
    CHECK(deepseek.method == "fp8");
    REQUIRE(deepseek.blocks.size() == 1);
    CHECK(deepseek.blocks[0] == quantization_config::block_size{128, 64});
    CHECK(deepseek.blocks_only);
    CHECK(deepseek.ignore == std::vector<std::string>{"lm_head"});
    CHECK(!config(R"({"quant_method":"fp8","weight_block_size":null})").blocks_only);

    const auto structured = [](const std::string& structure) {
        return config(R"({"quant_method":"compressed-tensors","config_groups":{"g":{"weights":{"block_structure":)" +
                      structure + "}}}}");
    };
    for (const auto& [text, block] :
         {std::pair{"\"128x128\"", quantization_config::block_size{128, 128}}, {"\"32x64\"", {32, 64}}}) {
        REQUIRE(structured(text).blocks.size() == 1);  // as older files write it
        CHECK(structured(text).blocks[0] == block);
        CHECK(structured(text).blocks_only);
    }
    for (const char* text : {"", "128", "128x", "x128", "128x128x128", "128*128", "0x128", "-1x128", "12 8x128",
                             "128x1.5", "128x2147483648", "99999999999999999999x1", "0X80"})
        LARQL_CHECK_ERROR(structured("\"" + std::string(text) + "\""), errc::bad_value,
                          std::string("config_groups.g.weights.block_structure: expected two numbers such as 128x128, "
                                      "got \"") +
                              text + "\"");

    const quantization_config mixed = config(R"({"quant_method":"compressed-tensors","format":"mixed-precision",
        "config_groups":{"a":{"format":"pack-quantized","weights":{"num_bits":4,"group_size":32,"symmetric":true}},
                         "b":{"format":"float-quantized","weights":{"num_bits":8,"block_structure":[128,128],"symmetric":false}},
                         "c":{"weights":{"num_bits":8,"strategy":"channel"}}}})");
    CHECK(mixed.formats == std::vector<std::string>{"mixed-precision", "pack-quantized", "float-quantized"});
    CHECK(mixed.bits == std::vector<std::uint64_t>{4, 8});
    CHECK(mixed.blocks.size() == 2);
    CHECK(!mixed.blocks_only);
    CHECK(!mixed.asymmetric);

    const quantization_config awq = config(R"({"quant_method":"awq","bits":4,"group_size":-1,"version":"GEMM"})");
    CHECK(awq.variant == "gemm");
    CHECK(awq.group_size == -1);
    const quantization_config exported = config(R"({"producer":{"name":"modelopt"},"quantization":
        {"quant_algo":"NVFP4","group_size":16,"exclude_modules":["lm_head"]}})");
    CHECK(exported.method == "modelopt");
    CHECK(exported.variant == "NVFP4");
    CHECK(config(R"({"qformat_weight":"fp8_e4m3","qscheme_act":"TENSOR"})").method == "mistral");

    const auto whole = larql::detail::parse_json(
        R"({"model_type":"kimi_k25","text_config":{"quantization_config":{"quant_method":"fp8"}}})", {});
    CHECK(quantization_config::find_in(whole).method == "fp8");
    CHECK(quantization_config::find_in(larql::detail::parse_json("{}", {})).method.empty());
    CHECK(quantization_config::find_in(larql::detail::parse_json(R"({"quantization":{"qformat_weight":"x"}})", {}))
              .method == "mistral");
}

TEST_CASE("quantization_config: a field of the wrong kind is named") {
    LARQL_CHECK_ERROR(config("[]"), errc::wrong_type, "quantization_config: expected an object, got array");
    LARQL_CHECK_ERROR(config(R"({"x":1})"), errc::missing_key, "quantization_config.quant_method");
    LARQL_CHECK_ERROR(config(R"({"quant_method":4})"), errc::wrong_type, "quant_method: expected a string, got number");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"fp8","weight_block_size":[128]})"), errc::wrong_type, "two numbers");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"fp8","weight_block_size":[0,128]})"), errc::bad_value,
                      "weight_block_size: expected 1 to 2^31 - 1, got 0");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"fp8","weight_block_size":[128.0,128]})"), errc::wrong_type,
                      "an integer");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"awq","bits":99999999999999999999})"), errc::wrong_type, "bits");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"awq","bits":18446744073709551615})"), errc::bad_value, "bits");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"awq","group_size":-2})"), errc::bad_value, "got -2");
    LARQL_CHECK_ERROR(config(R"({"quant_method":"x","ignore":[1]})"), errc::wrong_type, "ignore: expected strings");
    LARQL_CHECK_ERROR(
        config(R"({"quant_method":"compressed-tensors","config_groups":{"g":{"weights":{"symmetric":1}}}})"),
        errc::wrong_type, "config_groups.g.weights.symmetric: expected true or false");
}
