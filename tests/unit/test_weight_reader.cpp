// SPDX-License-Identifier: Apache-2.0
//
// Every scheme against fixtures whose floats come from the schemes' own packages or formulas (tests/data/quant, with
// the recipes). All comparisons are bit for bit: the fixtures' recipes compute in float32, in the order that
// detail/quant/grid.hpp states.
#include <larql/detail/io/json.hpp>
#include <larql/weight_reader.hpp>

#include <doctest/doctest.h>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/random.hpp>
#include <support/safetensors_builder.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using larql::errc;
using larql::gguf_file;
using larql::quantization_config;
using larql::safetensors_file;
using larql::weight;
using larql::weight_reader;
namespace testing = larql::testing;

namespace {

const std::filesystem::path quant_data = std::filesystem::path(LARQL_TEST_DATA) / "quant";

/// Equal bits, or both NaN.
bool same_float(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

std::size_t count_differences(const std::vector<float>& got, const std::vector<float>& expected) {
    if (got.size() != expected.size()) return std::numeric_limits<std::size_t>::max();
    std::size_t count = 0;
    for (std::size_t i = 0; i < got.size(); ++i) count += same_float(got[i], expected[i]) ? 0 : 1;
    return count;
}

std::vector<float> read_rows(const weight& w, std::uint64_t begin, std::uint64_t end) {
    std::vector<float> out(static_cast<std::size_t>((end - begin) * w.columns()));
    w.read_rows(begin, end, out.data(), static_cast<std::size_t>(w.columns()));
    return out;
}

std::vector<float> floats_of(const safetensors_file& file, const larql::tensor_info& info) {
    std::vector<float> out(static_cast<std::size_t>(info.element_count()));
    std::memcpy(out.data(), file.bytes(info).data(), out.size() * sizeof(float));
    return out;
}

quantization_config config_of(const std::filesystem::path& path) {
    return quantization_config::find_in(
        larql::detail::parse_json(testing::read_file(path), {.file = path.string(), .offset = {}, .subject = {}}));
}

/// Rows of any range are the rows of the whole, wherever the range begins and ends, and gaps are left alone.
void check_ranges(const weight& w, const std::vector<float>& expected) {
    testing::random_source random(7);
    const auto columns = static_cast<std::size_t>(w.columns());
    for (int round = 0; round < 12; ++round) {
        const std::uint64_t begin = random.below(static_cast<std::size_t>(w.rows()) + 1);
        const std::uint64_t end = begin + random.below(static_cast<std::size_t>(w.rows() - begin) + 1);
        const auto count = static_cast<std::size_t>(end - begin);
        const std::size_t stride = columns + static_cast<std::size_t>(round % 3);
        std::vector<float> got(count * stride + 1, 42.0F);
        w.read_rows(begin, end, got.data(), stride);
        std::size_t wrong = got.back() == 42.0F ? 0 : 1;
        for (std::size_t i = 0; i < count * stride; ++i) {
            const std::size_t row = i / stride;
            const std::size_t column = i % stride;
            const float wanted =
                column < columns ? expected[(static_cast<std::size_t>(begin) + row) * columns + column] : 42.0F;
            wrong += same_float(got[i], wanted) ? 0 : 1;
        }
        CHECK_MESSAGE(wrong == 0, "rows " << begin << " to " << end << " of " << w.name());
    }
}

/// Every tensor of NAME.expected.safetensors, read from NAME.safetensors under NAME.config.json.
void check_fixture(const std::string& name, const std::vector<std::string>& schemes) {
    const auto file = safetensors_file::open(quant_data / (name + ".safetensors"));
    const auto expected = safetensors_file::open(quant_data / (name + ".expected.safetensors"));
    const weight_reader reader(file, config_of(quant_data / (name + ".config.json")));
    CHECK(expected.tensors().size() != 0);
    for (const larql::tensor_info& info : expected.tensors()) {
        CAPTURE(name);
        CAPTURE(std::string(info.name));
        const weight w = reader.at(info.name);
        CHECK(std::vector(w.shape().begin(), w.shape().end()) == info.shape);
        CHECK(w.rows() == info.rows());
        const std::vector<float> wanted = floats_of(expected, info);
        CHECK(count_differences(read_rows(w, 0, w.rows()), wanted) == 0);
        check_ranges(w, wanted);
        CHECK(std::find(schemes.begin(), schemes.end(), w.scheme()) != schemes.end());
        CHECK((w.raw() != nullptr) == w.scheme().empty());
        CHECK(w.stored_bytes() > 0);
        CHECK(reader.contains(info.name));
    }
}

}  // namespace

TEST_CASE("weight_reader: reads DeepSeek's FP8 blocks with float, bf16 and ue8m0 scales, and its FP4 experts") {
    check_fixture("deepseek_fp8", {"", "fp8-block", "mxfp4"});
}

TEST_CASE("weight_reader: reads FP8 and INT8 with scales by tensor, row and expert") {
    check_fixture("simple_scales", {"fp8", "int8"});
}

TEST_CASE("weight_reader: reads compressed-tensors' packed integers") {
    for (const char* name : {"pack_int4", "pack_int4_zero_points", "pack_int4_experts", "pack_int4_act_order"})
        check_fixture(name, {"int4-packed"});
    for (const char* name : {"pack_int8", "pack_int8_zero_points"}) check_fixture(name, {"int8-packed"});
    for (const char* name : {"pack_int2", "pack_int2_zero_points"}) check_fixture(name, {"int2-packed"});
}

TEST_CASE("weight_reader: reads compressed-tensors' unpacked formats") {
    check_fixture("float_quantized", {"fp8", "fp8-block"});
    check_fixture("mxfp8_quantized", {"fp8-block"});
    check_fixture("int_quantized", {"int8"});
    check_fixture("naive_quantized", {"int8-group"});
}

TEST_CASE("weight_reader: reads MXFP4 and NVFP4 of compressed-tensors, modelopt and GPT-OSS") {
    check_fixture("mxfp4_pack_quantized", {"mxfp4"});
    check_fixture("nvfp4_pack_quantized", {"nvfp4"});
    check_fixture("modelopt_nvfp4", {"nvfp4", "fp8"});
    check_fixture("gpt_oss_mxfp4", {"", "mxfp4-blocks"});
}

TEST_CASE("weight_reader: reads AWQ and GPTQ as [out, in], in stored and in activation order") {
    check_fixture("awq", {"", "awq"});
    for (const char* name : {"gptq_int4", "gptq_v2_int4", "gptq_int8", "gptq_int2"}) check_fixture(name, {"gptq"});
}

TEST_CASE("weight_reader: finds scales in another shard, also when the index leaves them out") {
    const auto file = safetensors_file::open(quant_data / "deepseek_fp8_sharded");
    const auto expected = safetensors_file::open(quant_data / "deepseek_fp8.expected.safetensors");
    const weight_reader reader(file, config_of(quant_data / "deepseek_fp8.config.json"));
    REQUIRE(file.shard_count() == 2);
    for (const char* name : {"f32_scales.weight", "v4.weight"}) {
        const weight w = reader.at(name);
        CHECK(count_differences(read_rows(w, 0, w.rows()), floats_of(expected, expected.at_tensor(name))) == 0);
    }
}

TEST_CASE(
    "weight_reader: a published layout of FP8 equals its definition, code times scale of block [r / 128, c / 128]") {
    const auto folder = std::filesystem::path(LARQL_TEST_DATA) / "hf" / "deepseek_v3_fp8";
    const auto file = safetensors_file::open(folder);
    const weight_reader reader(file, config_of(folder / "config.json"));
    std::size_t scaled = 0;
    for (const std::string& name : reader.names()) {
        const weight w = reader.at(name);
        const std::vector<float> got = read_rows(w, 0, w.rows());
        if (w.scheme().empty()) continue;
        ++scaled;
        const auto codes = file.bytes(file.at_tensor(name));
        const std::vector<float> scales = floats_of(file, file.at_tensor(name + "_scale_inv"));
        const std::size_t columns = static_cast<std::size_t>(w.columns());
        std::vector<float> expected(got.size());
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const std::size_t block = i / columns / 128 * ((columns + 127) / 128) + i % columns / 128;
            expected[i] = larql::f8_e4m3_to_float(static_cast<std::uint8_t>(codes[i])) * scales[block];
        }
        CHECK_MESSAGE(count_differences(got, expected) == 0, name);
    }
    CHECK(scaled > 20);
}

TEST_CASE("weight_reader: plain tensors show their bytes, and integers never become floats") {
    const testing::temporary_folder folder;
    const std::string data = testing::le(1.5F) + testing::le(-2.0F) + testing::le(std::int64_t{7});
    const auto path =
        testing::write_file(folder / "a.safetensors", testing::safetensors_builder()
                                                          .tensor("x", "F32", "[2,1]", data.substr(0, 8))
                                                          .tensor("tid2eid", "I64", "[1]", data.substr(8))
                                                          .tensor("empty", "F32", "[0,3]", "")
                                                          .tensor("scalar", "F32", "[]", testing::le(3.0F))
                                                          .build());
    const auto file = safetensors_file::open(path);
    const weight_reader reader(file);
    const weight x = reader.at("x");
    REQUIRE(x.raw() != nullptr);
    CHECK(file.bytes(*x.raw()).size() == 8);
    CHECK(x.stored_bytes() == 8);
    CHECK(x.type() == larql::dtype::f32);
    CHECK(read_rows(x, 1, 2) == std::vector<float>{-2.0F});
    const weight integers = reader.at("tid2eid");
    CHECK(integers.raw() != nullptr);
    float out = 0.0F;
    LARQL_CHECK_ERROR((integers.read_rows(0, 1, &out, 1), 0), errc::unsupported_dtype, "I64 holds integers");
    CHECK(read_rows(reader.at("empty"), 0, 0).empty());
    CHECK(read_rows(reader.at("scalar"), 0, 1) == std::vector<float>{3.0F});
    CHECK(!reader.find("y"));
    CHECK(!reader.contains("y"));
    LARQL_CHECK_ERROR(reader.at("y"), errc::missing_tensor, "y: no such weight");
}

TEST_CASE("weight_reader: rows that do not exist and strides that are too short are refused") {
    const auto file = safetensors_file::open(quant_data / "awq.safetensors");
    const weight_reader reader(file, config_of(quant_data / "awq.config.json"));
    const weight w = reader.at("a.weight");  // [40, 96]
    std::vector<float> out(96);
    LARQL_CHECK_ERROR((w.read_rows(0, 41, out.data(), 96), 0), errc::shape_mismatch,
                      "rows 0 to 41 of a weight with 40");
    LARQL_CHECK_ERROR((w.read_rows(2, 1, out.data(), 96), 0), errc::shape_mismatch, "rows 2 to 1");
    LARQL_CHECK_ERROR((w.read_rows(0, 1, out.data(), 95), 0), errc::shape_mismatch, "at least 96, got 95");
    w.read_rows(40, 40, nullptr, 96);
}

TEST_CASE("weight_reader: threads may read one weight at once") {
    const auto file = safetensors_file::open(quant_data / "deepseek_fp8.safetensors");
    const weight_reader reader(file, config_of(quant_data / "deepseek_fp8.config.json"));
    const weight w = reader.at("f32_scales.weight");
    const std::vector<float> expected = read_rows(w, 0, w.rows());
    std::vector<std::vector<float>> got(4);
    std::vector<std::thread> threads;
    for (auto& one : got)
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) one = read_rows(w, 0, w.rows());
        });
    for (auto& thread : threads) thread.join();
    for (const auto& one : got) CHECK(count_differences(one, expected) == 0);
}

TEST_CASE("weight_reader: GGUF's sibling scales multiply, by tensor and by expert, and input scales do not") {
    const testing::temporary_folder folder;
    testing::gguf_builder builder;
    builder.floats("a.weight", {2, 2}, {1, 2, 3, 4})
        .floats("a.scale", {1}, {0.5F})
        .floats("a.input_scale", {1}, {9.0F})
        .floats("e.weight", {2, 1, 3}, {1, 2, 3, 4, 5, 6})
        .floats("e.scale", {3}, {1, 10, 100})
        .floats("bad.weight", {2, 1, 3}, {1, 2, 3, 4, 5, 6})
        .floats("bad.scale", {2}, {1, 10})
        .floats("plain.weight", {2}, {1, 2})
        .floats("lone.scale", {1}, {3});
    const auto file = gguf_file::open(testing::write_file(folder / "a.gguf", builder.build()));
    const weight_reader reader(file);
    const weight a = reader.at("a.weight");
    CHECK(read_rows(a, 0, 2) == std::vector<float>{0.5F, 1, 1.5F, 2});
    CHECK(a.raw() == nullptr);
    CHECK(a.stored_bytes() == 20);
    const weight e = reader.at("e.weight");
    CHECK(e.shape().size() == 3);
    CHECK(read_rows(e, 0, 3) == std::vector<float>{1, 2, 30, 40, 500, 600});
    CHECK(read_rows(e, 2, 3) == std::vector<float>{500, 600});
    LARQL_CHECK_ERROR(reader.at("bad.weight"), errc::shape_mismatch, "expected 1 or 3 factors");
    CHECK(reader.at("plain.weight").raw() != nullptr);
    CHECK(reader.names() == std::vector<std::string>{"a.weight", "a.input_scale", "e.weight", "bad.weight",
                                                     "plain.weight", "lone.scale"});
    CHECK(!reader.find("b"));
    LARQL_CHECK_ERROR(reader.at("b"), errc::missing_tensor, "no such weight");
}

TEST_CASE("weight_reader: lists weights by their logical names, without scales and zero points") {
    for (const char* name : {"deepseek_fp8", "pack_int4_zero_points", "gpt_oss_mxfp4", "gptq_int4", "modelopt_nvfp4"}) {
        const auto file = safetensors_file::open(quant_data / (std::string(name) + ".safetensors"));
        const auto expected = safetensors_file::open(quant_data / (std::string(name) + ".expected.safetensors"));
        const weight_reader reader(file, config_of(quant_data / (std::string(name) + ".config.json")));
        std::vector<std::string> got = reader.names();
        std::erase_if(got, [](const std::string& n) { return n.ends_with("input_scale"); });
        std::vector<std::string> wanted;
        for (const auto& info : expected.tensors()) wanted.emplace_back(info.name);
        std::sort(got.begin(), got.end());
        std::sort(wanted.begin(), wanted.end());
        CHECK(got == wanted);
    }
}

TEST_CASE("weight_reader: a file that shrinks while it is read is an error, not a signal") {
    const testing::temporary_folder folder;
    const auto path = folder / "a.safetensors";
    std::filesystem::copy_file(quant_data / "deepseek_fp8.safetensors", path);
    const auto file = safetensors_file::open(path);
    const weight w = weight_reader(file, config_of(quant_data / "deepseek_fp8.config.json")).at("v4.weight");
    std::filesystem::resize_file(path, 64);
    LARQL_CHECK_ERROR(read_rows(w, 0, w.rows()), errc::source_changed, "changed after it was opened");
}

namespace {

/// The weight outlives everything but what it holds itself, still reads `expected`, and then lets the file go.
template <class File>
void check_owned(std::shared_ptr<const File>&& file, weight_reader&& reader, const std::string& name,
                 const std::vector<float>& expected) {
    CAPTURE(name);
    const std::weak_ptr<const File> watched = file;
    std::optional<weight> w = reader.at(name);
    file.reset();
    { const weight_reader ended = std::move(reader); }
    CHECK(!watched.expired());
    CHECK(count_differences(read_rows(*w, 0, w->rows()), expected) == 0);
    const weight copy = *w;
    w.reset();
    CHECK(count_differences(read_rows(copy, 0, copy.rows()), expected) == 0);
    if (copy.raw() != nullptr) CHECK(copy.raw()->name == name);
}

}  // namespace

TEST_CASE("weight_reader: weights of a shared checkpoint stay valid when reader and file are let go") {
    // One of each way in which sources hold their bytes: plain, by a grid, and straight from the map.
    for (const auto& [fixture, name] : {std::pair{"deepseek_fp8", "f32_scales.weight"},
                                        {"pack_int4_zero_points", ""},
                                        {"awq", ""},
                                        {"gpt_oss_mxfp4", ""}}) {
        const auto expected = safetensors_file::open(quant_data / (std::string(fixture) + ".expected.safetensors"));
        for (const larql::tensor_info& info : expected.tensors()) {
            if (!std::string_view(name).empty() && info.name != name) continue;
            auto file = std::make_shared<const safetensors_file>(
                safetensors_file::open(quant_data / (std::string(fixture) + ".safetensors")));
            const std::weak_ptr<const safetensors_file> watched = file;
            weight_reader reader(file, config_of(quant_data / (std::string(fixture) + ".config.json")));
            check_owned(std::move(file), std::move(reader), std::string(info.name), floats_of(expected, info));
            CHECK(watched.expired());
        }
    }
}

TEST_CASE("weight_reader: weights of a shared GGUF stay valid when reader and file are let go, with their scales") {
    const testing::temporary_folder folder;
    testing::gguf_builder builder;
    builder.floats("a.weight", {2, 2}, {1, 2, 3, 4}).floats("a.scale", {1}, {0.5F}).floats("b.weight", {2}, {5, 6});
    const auto path = testing::write_file(folder / "a.gguf", builder.build());
    for (const auto& [name, expected] :
         {std::pair{"a.weight", std::vector<float>{0.5F, 1, 1.5F, 2}}, {"b.weight", std::vector<float>{5, 6}}}) {
        auto file = std::make_shared<const gguf_file>(gguf_file::open(path));
        const std::weak_ptr<const gguf_file> watched = file;
        weight_reader reader(file);
        check_owned(std::move(file), std::move(reader), name, expected);
        CHECK(watched.expired());
    }
}

TEST_CASE("weight_reader: a temporary file is taken over, a named one is not, and no file is refused") {
    const auto path = quant_data / "awq.safetensors";
    const quantization_config config = config_of(quant_data / "awq.config.json");
    const auto file = safetensors_file::open(path);
    const weight borrowed = weight_reader(file, config).at("a.weight");
    const weight owned = weight_reader(safetensors_file::open(path), config).at("a.weight");
    CHECK(count_differences(read_rows(owned, 0, 40), read_rows(borrowed, 0, 40)) == 0);
    CHECK(weight_reader(gguf_file::open(std::filesystem::path(LARQL_TEST_DATA) / "gguf" / "llama3-bf16.gguf"))
              .contains("blk.0.attn_q.weight"));
    LARQL_CHECK_ERROR(weight_reader(std::shared_ptr<const safetensors_file>{}), errc::bad_value, "got a null pointer");
    LARQL_CHECK_ERROR(weight_reader(std::shared_ptr<const gguf_file>{}), errc::bad_value, "got a null pointer");
}

namespace {

/// A GPTQ layer [16, 64] in groups of 32 inputs, with random codes and the given stored zero points.
struct gptq_layer {
    unsigned bits;
    std::vector<unsigned> codes;  // [in, out]
    std::string bytes;

    gptq_layer(unsigned width, unsigned stored_zero, unsigned other_zero) : bits(width) {
        testing::random_source random(width);
        for (std::size_t i = 0; i < 64 * 16; ++i) codes.push_back(static_cast<unsigned>(random.below(1U << bits)));
        const unsigned lanes = 32 / bits;
        std::string qweight, qzeros, scales;
        for (unsigned row = 0; row < 64; row += lanes)
            for (unsigned o = 0; o < 16; ++o) {
                std::uint32_t word = 0;
                for (unsigned i = 0; i < lanes; ++i) word |= codes[(row + i) * 16 + o] << (bits * i);
                qweight += testing::le(word);
            }
        for (unsigned o = 0; o < 2 * 16; o += lanes) {
            std::uint32_t word = 0;
            for (unsigned i = 0; i < lanes; ++i) word |= (o + i == 17 ? other_zero : stored_zero) << (bits * i);
            qzeros += testing::le(word);
        }
        for (unsigned i = 0; i < 2 * 16; ++i) scales += testing::le(scale(i));
        const std::string rows = std::to_string(64 / lanes), words = std::to_string(16 / lanes);
        bytes = testing::safetensors_builder()
                    .tensor("a.qweight", "I32", "[" + rows + ",16]", qweight)
                    .tensor("a.qzeros", "I32", "[2," + words + "]", qzeros)
                    .tensor("a.scales", "F32", "[2,16]", scales)
                    .build();
    }

    static float scale(unsigned i) { return 0.25F + static_cast<float>(i) / 64; }

    /// Values of the weight [16, 64] where every zero point is this.
    [[nodiscard]] std::vector<float> expected(unsigned zero) const {
        std::vector<float> out;
        for (unsigned o = 0; o < 16; ++o)
            for (unsigned i = 0; i < 64; ++i)
                out.push_back((static_cast<float>(codes[i * 16 + o]) - static_cast<float>(zero)) *
                              scale(i / 32 * 16 + o));
        return out;
    }

    /// "zero Z" if the layer is read with that one, or else the error, under a quantization_config that begins so.
    [[nodiscard]] std::string read(const std::string& config) const {
        const testing::temporary_folder folder;
        const auto file = safetensors_file::open(testing::write_file(folder / "a.safetensors", bytes));
        const std::string text = config + ",\"bits\":" + std::to_string(bits) + ",\"group_size\":32}";
        std::string said;
        const std::string error = testing::error_of([&] {
            const weight w =
                weight_reader(file, quantization_config::parse(larql::detail::parse_json(text, {}))).at("a.weight");
            const std::vector<float> got = read_rows(w, 0, 16);
            for (unsigned zero = 0; zero <= 1U << bits; ++zero)
                if (count_differences(got, expected(zero)) == 0) said = "zero " + std::to_string(zero);
            return 0;
        });
        return error == "no error" ? said : error;
    }
};

constexpr const char* gptq_v1 = R"({"quant_method":"gptq","checkpoint_format":"gptq")";
constexpr const char* gptq_v2 = R"({"quant_method":"gptq","checkpoint_format":"gptq_v2")";

}  // namespace

TEST_CASE("weight_reader: symmetric GPTQ has the one zero point 2^(bits - 1), however its writer stored it") {
    for (const unsigned bits : {2U, 4U, 8U}) {
        CAPTURE(bits);
        const unsigned middle = 1U << (bits - 1);
        const std::string right = "zero " + std::to_string(middle);
        for (const unsigned stored : {middle - 1, middle}) {
            const gptq_layer layer(bits, stored, stored);
            for (const std::string format : {R"({"quant_method":"gptq")", gptq_v1, gptq_v2}) {
                CHECK(layer.read(format + R"(,"sym":true)") == right);
                const bool less_one = format != gptq_v2;
                CHECK(layer.read(format + R"(,"sym":false)") == "zero " + std::to_string(stored + (less_one ? 1 : 0)));
                // Without sym only the writer could tell, unless both readings are the same.
                if (stored + (less_one ? 1 : 0) == middle)
                    CHECK(layer.read(format) == right);
                else
                    LARQL_CHECK_ERROR_TEXT(layer.read(format), errc::missing_key,
                                           "expected sym in quantization_config");
            }
        }
    }
}

TEST_CASE("weight_reader: GPTQ whose zero points are not those of symmetric quantisation is not taken for it") {
    for (const unsigned bits : {2U, 4U, 8U}) {
        CAPTURE(bits);
        const unsigned middle = 1U << (bits - 1);
        const gptq_layer elsewhere(bits, middle - 2, middle - 2), mixed(bits, middle - 1, middle);
        for (const std::string format : {gptq_v1, gptq_v2}) {
            LARQL_CHECK_ERROR_TEXT(elsewhere.read(format + R"(,"sym":true)"), errc::bad_value,
                                   "expected " + std::to_string(middle) + " or " + std::to_string(middle - 1) +
                                       " throughout, got " + std::to_string(middle - 2));
            LARQL_CHECK_ERROR_TEXT(mixed.read(format + R"(,"sym":true)"), errc::bad_value, "got different ones");
            CHECK(elsewhere.read(format) == "zero " + std::to_string(middle - (format == gptq_v1 ? 1 : 2)));
        }
    }
}

TEST_CASE("weight_reader: auto-round's packing formats say how zero points are stored, and unknown ones are refused") {
    const gptq_layer layer(4, 5, 5);
    const auto read = [&](const std::string& method, const std::string& key, const std::string& value) {
        return layer.read("{\"quant_method\":\"" + method + "\",\"sym\":false,\"" + key + "\":\"" + value + "\"");
    };
    for (const char* method : {"auto-round", "auto_round", "intel/auto-round"})
        for (const char* format : {"auto_round:auto_gptq", "auto_round:gptq", "auto_round:auto_gptq:exllamav2"})
            CHECK(read(method, "packing_format", format) == "zero 6");
    CHECK(read("auto-round", "packing_format", "auto_round:gptqmodel") == "zero 5");
    CHECK(read("auto-round", "packing_format", "auto_round") == "zero 5");
    CHECK(read("auto-round", "packing_format", "auto_round:exllamav2") == "zero 5");
    for (const char* backend : {"gptq:exllamav2", "auto_round:gptq:exllamav2", "auto", "auto_gptq"})
        CHECK(read("auto-round", "backend", backend) == "zero 6");
    CHECK(read("auto-round", "backend", "autoround:exllamav2") == "zero 5");
    CHECK(read("gptq", "format", "gptq_v2") == "zero 5");  // as newer GPTQModel names it
    CHECK(layer.read(R"({"quant_method":"auto-round","sym":false)") == "zero 6");
    for (const char* format : {"auto_round:llm_compressor", "auto_round:fp8_static", "auto_round:fake", "mlx", "new"})
        LARQL_CHECK_ERROR_TEXT(read("auto-round", "packing_format", format), errc::unsupported_dtype,
                               std::string("auto-round packing_format \"") + format + "\"");
    LARQL_CHECK_ERROR_TEXT(layer.read(R"({"quant_method":"auto-round","packing_format":"auto_round","act_bits":8)"),
                           errc::unsupported_dtype, "8 bits of activations");
    LARQL_CHECK_ERROR_TEXT(
        layer.read(R"({"quant_method":"auto-round","packing_format":"auto_round","data_type":"mx_int")"),
        errc::unsupported_dtype, "mx_int");
    LARQL_CHECK_ERROR_TEXT(layer.read(R"({"quant_method":"auto-round","rotation_config":{"hadamard_type":"hadamard"})"),
                           errc::unsupported_dtype, "stored rotated");
    LARQL_CHECK_ERROR_TEXT(layer.read(R"({"quant_method":"gptq","format":"gptq_v2","checkpoint_format":"gptq")"),
                           errc::bad_value, "got \"gptq_v2\" and \"gptq\"");
}

TEST_CASE("weight_reader: auto-round in AWQ's packing reads as AWQ does") {
    const auto file = safetensors_file::open(quant_data / "awq.safetensors");
    const auto expected = safetensors_file::open(quant_data / "awq.expected.safetensors");
    for (const char* format : {"auto_round:auto_awq", "auto_round:awq", "auto_round:awq:gemm"}) {
        const std::string text =
            std::string(R"({"quant_method":"auto-round","bits":4,"group_size":32,"packing_format":")") + format + "\"}";
        const weight_reader reader(file, quantization_config::parse(larql::detail::parse_json(text, {})));
        for (const larql::tensor_info& info : expected.tensors())
            CHECK(count_differences(read_rows(reader.at(info.name), 0, info.rows()), floats_of(expected, info)) == 0);
    }
}

TEST_CASE("weight_reader: compressed-tensors' zero points may be numbers of any floating-point type") {
    // Zero points stand in the codes' signed range: value = (code - zero) * scale.
    const testing::temporary_folder folder;
    const auto stored = [](std::string_view type, float value) {
        return type == "F32"   ? testing::le(value)
               : type == "F16" ? testing::le(larql::float_to_f16(value))
                               : testing::le(larql::float_to_bf16(value));
    };
    for (const unsigned bits : {2U, 4U, 8U})
        for (const std::string type : {"F32", "BF16", "F16"})
            for (const unsigned groups : {1U, 2U}) {
                CAPTURE(bits);
                CAPTURE(type);
                CAPTURE(groups);
                testing::random_source random(bits + groups);
                std::string packed, zeros, scales, signed_codes;
                std::vector<float> zero, scale, expected;
                for (unsigned g = 0; g < 3 * groups; ++g) {
                    const int half = 1 << (bits - 1);
                    zero.push_back(g == 0 ? 0.5F
                                          : static_cast<float>(static_cast<int>(random.below(1U << bits)) - half));
                    scale.push_back(0.5F + static_cast<float>(g));
                    zeros += stored(type, zero.back());
                    scales += stored("BF16", scale.back());
                }
                for (unsigned row = 0; row < 3; ++row)
                    for (unsigned c = 0; c < 64; c += 32 / bits) {
                        std::uint32_t word = 0;
                        for (unsigned i = 0; i < 32 / bits; ++i) {
                            const auto code = static_cast<unsigned>(random.below(1U << bits));
                            const unsigned at = row * groups + (c + i) * groups / 64;
                            const float value = static_cast<float>(code) - static_cast<float>(1U << (bits - 1));
                            word |= code << (bits * i);
                            signed_codes += static_cast<char>(static_cast<int>(value));
                            expected.push_back((value - zero[at]) * scale[at]);
                        }
                        packed += testing::le(word);
                    }
                const std::string grid = "[3," + std::to_string(groups) + "]";
                const auto path = testing::write_file(
                    folder / "a.safetensors",
                    testing::safetensors_builder()
                        .tensor("a.weight_packed", "I32", "[3," + std::to_string(2 * bits) + "]", packed)
                        .tensor("a.weight_shape", "I64", "[2]",
                                testing::le(std::int64_t{3}) + testing::le(std::int64_t{64}))
                        .tensor("a.weight_scale", "BF16", grid, scales)
                        .tensor("a.weight_zero_point", type, grid, zeros)
                        .tensor("b.weight", "I8", "[3,64]", signed_codes)
                        .tensor("b.weight_scale", "BF16", grid, scales)
                        .tensor("b.weight_zero_point", type, grid, zeros)
                        .tensor("c.weight_packed", "I32", "[3," + std::to_string(2 * bits) + "]", packed)
                        .tensor("c.weight_shape", "I64", "[2]",
                                testing::le(std::int64_t{3}) + testing::le(std::int64_t{64}))
                        .tensor("c.weight_scale", "BF16", grid, scales)
                        .tensor("c.weight_zero_point", type, "[1,1]", zeros.substr(0, zeros.size() / (3 * groups)))
                        .build());
                const std::string strategy =
                    groups == 1 ? R"("strategy":"channel")" : R"("strategy":"group","group_size":32)";
                const std::string config =
                    R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":
                    {"g":{"weights":{"num_bits":)" +
                    std::to_string(bits) + R"(,"symmetric":false,)" + strategy + "}}}}";
                const weight_reader reader(safetensors_file::open(path),
                                           quantization_config::parse(larql::detail::parse_json(config, {})));
                for (const char* name : {"a.weight", "b.weight"})
                    CHECK(count_differences(read_rows(reader.at(name), 0, 3), expected) == 0);
                LARQL_CHECK_ERROR(reader.at("c.weight"), errc::shape_mismatch, "c.weight_zero_point: expected [3, ");
            }
}
