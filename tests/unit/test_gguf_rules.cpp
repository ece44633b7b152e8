// SPDX-License-Identifier: Apache-2.0
//
// Rules of writing GGUF that no published case shows: each fails here if it is left out.
#include <larql/convert.hpp>
#include <larql/detail/convert/gguf_rope_rows.hpp>
#include <larql/detail/convert/gguf_sizes.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/row_makers.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>
#include <support/changed_case.hpp>
#include <support/files.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;
using larql::attention_form;
using larql::checkpoint;
using larql::container;
using larql::conversion;
using larql::conversion_options;
using larql::dtype;
using larql::gguf_file;
using larql::testing::changed_case;
using nlohmann::json;

const std::string data = LARQL_TEST_DATA;
const conversion_options to_gguf{.form = attention_form::factored, .to = container::gguf};

gguf_file convert(const fs::path& from, const fs::path& to, const conversion_options& options = to_gguf) {
    conversion(checkpoint::open(from), to, options).run();
    return gguf_file::open(to);
}

std::string refusal(const fs::path& from, const fs::path& to) {
    try {
        convert(from, to);
    } catch (const larql::error& e) {
        return e.what();
    }
    return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

/// A copy of a file with a float so many bytes behind a metadata key.
void copy_with_float(const fs::path& from, const fs::path& to, std::string_view key, std::size_t behind, float value) {
    std::string bytes = larql::testing::read_file(from);
    const std::size_t at = bytes.find(key);
    REQUIRE(at != bytes.npos);
    std::memcpy(bytes.data() + at + key.size() + behind, &value, sizeof value);
    larql::testing::write_file(to, bytes);
}

/// Numbers as a converter's row gives them.
std::vector<float> floats_of(const larql::detail::conversion_row& row) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(row.tensors.front().size_bytes()));
    row.rows(0, row.tensors.front().rows(), bytes);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

}  // namespace

TEST_CASE("gguf rules: a file is named after the folder, and from GGUF keeps its name but not its type or shards") {
    const larql::testing::temporary_folder folder;
    const gguf_file plain = convert(data + "/hf/youtu_gguf", folder / "plain.gguf");
    CHECK(plain.get<std::string>("general.name") == "youtu_gguf");
    CHECK(plain.get<int>("general.file_type") == 32);
    conversion_options small = to_gguf;
    small.shard_bytes = 4000;
    conversion(checkpoint::open(data + "/hf/youtu_gguf"), folder / "split", small).run();
    conversion_options f16 = to_gguf;
    f16.type = dtype::f16;
    const gguf_file joined = convert(folder / "split", folder / "joined.gguf", f16);
    for (const std::string_view key : joined.keys()) CHECK(!key.starts_with("split."));
    CHECK(joined.get<std::string>("general.name") == "youtu_gguf");
    CHECK(joined.get<int>("general.file_type") == 1);
}

TEST_CASE("gguf rules: what an older file states of groups stays, and sizes stand where its programs ask for them") {
    const larql::testing::temporary_folder folder;
    conversion_options whole = to_gguf;
    whole.split_kv_b = false;
    const fs::path grouped =
        changed_case("glm4_moe_lite_gguf", folder / "in", [](json& config) { config["n_group"] = 3; });
    convert(grouped, folder / "old.gguf", whole);
    CHECK(convert(folder / "old.gguf", folder / "new.gguf").get<int>("deepseek2.expert_group_count") == 3);
    const gguf_file old = convert(data + "/hf/kimi_linear_gguf", folder / "kimi.gguf", whole);
    CHECK(old.get<int>("kimi-linear.attention.key_length_mla") == 10);  // kimi-linear.cpp requires them
    CHECK(old.get<int>("kimi-linear.attention.value_length_mla") == 10);
    CHECK(old.get<int>("kimi-linear.attention.key_length") == 10);
}

TEST_CASE("gguf rules: experts are described where there are some, and no key of theirs may be missing") {
    const larql::testing::temporary_folder folder;
    const fs::path out = folder / "out.gguf";
    const gguf_file dense = convert(
        changed_case("youtu_gguf", folder / "dense", [](json& config) { config["n_routed_experts"] = 4; }), out);
    CHECK(dense.find_value("deepseek2.expert_gating_func") == nullptr);
    for (const char* key : {"routed_scaling_factor", "num_experts_per_tok", "n_shared_experts"}) {
        const fs::path from =
            changed_case("glm4_moe_lite_gguf", folder / key, [&](json& config) { config.erase(key); });
        CHECK(contains(refusal(from, folder / "none.gguf"), key));
    }
    const fs::path scored = changed_case("glm4_moe_lite_gguf", folder / "scored",
                                         [](json& config) { config["scoring_func"] = "sqrtsoftplus"; });
    CHECK(contains(refusal(scored, folder / "none.gguf"), "no scoring of experts by \"sqrtsoftplus\""));
    const fs::path few = changed_case(
        "glm4_moe_lite_gguf", folder / "few", [](json&) {}, {}, "layers.1.mlp.experts.0.up_proj.weight");
    CHECK(contains(refusal(few, folder / "none.gguf"), "experts"));
    const fs::path uneven = changed_case("glm4_moe_lite_gguf", folder / "uneven", [](json&) {}, {}, "",
                                         {{"layers.1.mlp.experts.1.up_proj.weight", {12, 32}}});
    CHECK(contains(refusal(uneven, folder / "none.gguf"), "differ in their sizes"));
}

TEST_CASE("gguf rules: an absent eps is the class's, a tied output is the embedding, key lengths only if stated") {
    const larql::testing::temporary_folder folder;
    const gguf_file eps =
        convert(changed_case("youtu_gguf", folder / "eps", [](json& config) { config.erase("rms_norm_eps"); }),
                folder / "eps.gguf");
    CHECK(eps.get<float>("deepseek2.attention.layer_norm_rms_epsilon") == 1e-6F);
    const gguf_file tied = convert(
        changed_case("deepseek_v3", folder / "tied", [](json& config) { config["tie_word_embeddings"] = true; }),
        folder / "tied.gguf");
    CHECK(tied.find_tensor("output.weight") == nullptr);
    const gguf_file stated = convert(data + "/hf/llama3", folder / "stated.gguf");
    CHECK(stated.get<int>("llama.attention.key_length") == 32);
    const gguf_file implied =
        convert(changed_case("llama3", folder / "implied", [](json& config) { config.erase("head_dim"); }, {}, "",
                             {{"q_proj.weight", {64, 64}},
                              {"k_proj.weight", {32, 64}},
                              {"v_proj.weight", {32, 64}},
                              {"o_proj.weight", {64, 64}}}),
                folder / "implied.gguf");
    CHECK(implied.find_value("llama.attention.key_length") == nullptr);
}

TEST_CASE("gguf rules: scaling of rotation is stated as it is, or refused by the key that GGUF lacks") {
    const larql::testing::temporary_folder folder;
    const gguf_file linear =
        convert(changed_case("llama3", folder / "linear",
                             [](json& config) {
                                 config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
                             }),
                folder / "linear.gguf");
    CHECK(linear.get<std::string>("llama.rope.scaling.type") == "linear");
    CHECK(linear.get<float>("llama.rope.scaling.factor") == 2.0F);
    const gguf_file usual = convert(changed_case("deepseek_v3", folder / "usual",
                                                 [](json& config) {
                                                     config["rope_scaling"].erase("beta_fast");
                                                     config["rope_scaling"].erase("beta_slow");
                                                 }),
                                    folder / "usual.gguf");
    CHECK(usual.find_value("deepseek2.rope.scaling.yarn_beta_fast") == nullptr);
    CHECK(usual.find_value("deepseek2.rope.scaling.yarn_beta_slow") == nullptr);
    const auto refused = [&](const std::string& name, const json& change) {
        const fs::path from =
            changed_case("deepseek_v3", folder / name, [&](json& config) { config["rope_scaling"].update(change); });
        return refusal(from, folder / "none.gguf");
    };
    CHECK(contains(refused("truncate", {{"truncate", false}}), "YaRN's truncate"));
    CHECK(contains(refused("magnitude", {{"attention_factor", 2.0}}), "YaRN's attention_factor"));
    const json factors = std::vector<double>(4, 2.0);
    const fs::path longrope = changed_case("youtu_gguf", folder / "longrope", [&](json& config) {
        config["rope_parameters"] = {{"rope_type", "longrope"},
                                     {"rope_theta", 500.0},
                                     {"short_factor", factors},
                                     {"long_factor", factors},
                                     {"original_max_position_embeddings", 128}};
    });
    CHECK(contains(refusal(longrope, folder / "none.gguf"), "no words for rope type \"longrope\""));
}

TEST_CASE("gguf rules: divisors of Llama 3.1 are those that torch computes in float32") {
    larql::rope_config rope;
    rope.kind = larql::rope_kind::llama3;
    rope.theta = 500000.0;
    rope.rotary_dim = 128;
    rope.factor = 8.0;
    rope.low_freq_factor = 1.0;
    rope.high_freq_factor = 4.0;
    rope.original_max_position = 8192.0;
    const std::vector<float> divisors = floats_of(larql::detail::llama3_divisors_row(rope));
    // llama.cpp's conversion/llama.py (generate_extra_tensors) with torch 2.13
    constexpr std::array want{0x1.351daap+0F, 0x1.8dac94p+0F, 0x1.035e3ap+1F,
                              0x1.58e65cp+1F, 0x1.d7959cp+1F, 0x1.50780cp+2F};
    REQUIRE(divisors.size() == 64);
    CHECK(divisors[28] == 1.0F);
    CHECK(divisors[35] == 8.0F);
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(divisors[29 + i] == want[i]);
    // A length that is no power of two shows that torch multiplies by a reciprocal.
    rope.original_max_position = 5000.0;
    CHECK(floats_of(larql::detail::llama3_divisors_row(rope))[26] == 0x1.0b9fap+0F);
}

TEST_CASE("gguf rules: what a file is called by its numbers goes by its matrices") {
    using larql::detail::conversion_row;
    const auto row = [](std::string name, dtype type, std::vector<std::uint64_t> shape) {
        return conversion_row{.tensors = {{std::move(name), type, std::move(shape)}}};
    };
    std::vector<conversion_row> rows;
    rows.push_back(row("a.weight", dtype::bf16, {2, 2}));
    rows.push_back(row("b.weight", dtype::f32, {4996}));
    CHECK(larql::detail::file_type_of(rows) == 32);
    CHECK(larql::detail::size_label(rows) == "5.0K");
    // So does the type of vectors where none is asked for.
    const larql::testing::temporary_folder folder;
    larql::testing::write_file(folder / "config.json", checkpoint::open(data + "/hf/youtu_gguf").config_json().dump());
    larql::safetensors_writer writer(folder / "model.safetensors");
    writer.add_tensor("a.weight", dtype::bf16, {2, 2});
    writer.add_tensor("b.weight", dtype::f32, {64});
    writer.write("a.weight", std::vector<std::byte>(8));
    writer.write("b.weight", std::vector<std::byte>(256));
    writer.commit();
    CHECK(larql::detail::most_of_matrices(checkpoint::open(folder.path())) == dtype::bf16);
    // A type that is read and not written becomes one that is.
    const larql::detail::conversion_scope gguf{.kind = container::gguf};
    CHECK(larql::detail::remade_type(gguf, true, dtype::q5_0, 64) == dtype::q8_0);
    CHECK(larql::detail::remade_type(gguf, true, dtype::q4_0, 64) == dtype::q4_0);

    std::vector<std::byte> out(2);
    const std::array<float, 1> large{70000.0F};
    CHECK_THROWS_WITH_AS(larql::detail::encode_numbers(dtype::f16, large, out, "a.weight"),
                         doctest::Contains("beyond the range of F16"), larql::error);
}

TEST_CASE("gguf rules: a part of a model is in an architecture of larql's own") {
    const larql::testing::temporary_folder folder;
    conversion_options part = to_gguf;
    part.layer_end = 1;
    const gguf_file file = convert(data + "/hf/youtu_gguf", folder / "part.gguf", part);
    CHECK(file.get<std::string>("general.architecture") == "larql-factored");
}

TEST_CASE("gguf rules: sizes of linear layers are read where transformers writes them, too, and must be sizes") {
    const larql::testing::temporary_folder folder;
    const gguf_file file = convert(changed_case("kimi_linear_gguf", folder / "in",
                                                [](json& config) {
                                                    config["linear_attn_config"].erase("head_dim");
                                                    config["linear_head_dim"] = 8;
                                                }),
                                   folder / "out.gguf");
    CHECK(file.get<int>("kimi-linear.kda.head_dim") == 8);
    const fs::path text = changed_case("kimi_linear_gguf", folder / "text",
                                       [](json& config) { config["linear_attn_config"]["head_dim"] = "8"; });
    CHECK(contains(refusal(text, folder / "none.gguf"), "expected a size, got \"8\""));
}

TEST_CASE("gguf rules: prediction blocks that a family's files do not have are not counted, whatever is stated") {
    const larql::testing::temporary_folder folder;
    const std::size_t layers = checkpoint::open(data + "/hf/deepseek_v3").config().num_hidden_layers;
    const fs::path from =
        changed_case("deepseek_v3", folder / "in", [](json& config) { config["num_nextn_predict_layers"] = 1; },
                     {"model.layers." + std::to_string(layers) + ".enorm.weight"});
    const gguf_file file = convert(from, folder / "out.gguf");
    CHECK(file.get<std::size_t>("deepseek2.block_count") == layers);
    CHECK(file.find_value("deepseek2.nextn_predict_layers") == nullptr);
    for (const larql::tensor_info& info : file.tensors()) CHECK(!contains(std::string(info.name), "nextn"));
    const fs::path small = changed_case("glm_moe_dsa_gguf", folder / "small", [](json&) {}, {}, "",
                                        {{"layers.3.self_attn.kv_b_proj.weight", {60, 12}}});
    CHECK(contains(refusal(small, folder / "none.gguf"), "the model's blocks imply [72, 12], the tensor has [60, 12]"));
}

TEST_CASE("gguf rules: rates of forgetting agree but for the last bit of an exponential, and for no more") {
    const larql::testing::temporary_folder folder;
    const checkpoint published = checkpoint::open(data + "/hf/kimi_linear_gguf");
    const std::string made = data + "/gguf/kimi_linear_gguf-bf16.gguf";
    CHECK(larql::verify(published, checkpoint::open(made)).holds());  // torch's exponentials
    const gguf_file file = gguf_file::open(made);
    const larql::tensor_info& rates = file.at_tensor("blk.2.ssm_a");
    std::uint32_t bits = 0;
    std::memcpy(&bits, file.bytes(rates).data(), sizeof bits);
    const fs::path changed = folder / "changed.gguf";
    fs::copy_file(made, changed);
    bits += 3;
    std::fstream out(changed, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(rates.offset));
    out.write(reinterpret_cast<const char*>(&bits), sizeof bits);
    out.close();
    CHECK(!larql::verify(published, checkpoint::open(changed)).holds());
}

TEST_CASE("gguf rules: a number for all layers is repeated in GGUF, and one that differs does not come back") {
    const larql::testing::temporary_folder folder;
    const gguf_file file = convert(data + "/hf/glm5_next_gguf", folder / "out.gguf");
    CHECK(file.get<std::vector<float>>("glm5-next.swiglu_clamp_exp") == std::vector<float>(5, 10.0F));
    const fs::path none = changed_case("glm5_next_gguf", folder / "none",
                                       [](json& config) { config["text_config"].erase("swiglu_limit"); });
    const gguf_file without = convert(none, folder / "none.gguf");
    CHECK(without.find_value("glm5-next.swiglu_clamp_exp") == nullptr);
    const fs::path text = changed_case("glm5_next_gguf", folder / "text",
                                       [](json& config) { config["text_config"]["swiglu_limit"] = "10"; });
    CHECK(contains(refusal(text, folder / "text.gguf"), "swiglu_limit: expected a number, got \"10\""));
    constexpr std::size_t first = 16;  // after the types and the number of elements
    for (const char* key : {"glm5-next.swiglu_clamp_exp", "glm5-next.swiglu_clamp_shexp"})
        for (const std::size_t element : {std::size_t{0}, std::size_t{4}}) {
            const fs::path changed = folder / "changed.gguf";
            copy_with_float(folder / "out.gguf", changed, key, first + element * sizeof(float), 7.0F);
            CHECK_THROWS_WITH_AS(
                conversion(checkpoint::open(changed), folder / "back", {.form = attention_form::factored}).run(),
                doctest::Contains("transformers has one number for all layers"), larql::error);
        }
}

TEST_CASE("gguf rules: a number that files state and no configuration does must be the family's") {
    const larql::testing::temporary_folder folder;
    convert(data + "/hf/glm5_next_gguf", folder / "out.gguf");
    copy_with_float(folder / "out.gguf", folder / "changed.gguf", "glm5-next.attention.layer_norm_epsilon",
                    sizeof(std::uint32_t), 1e-5F);
    CHECK_THROWS_WITH_AS((void)checkpoint::open(folder / "changed.gguf").config(),
                         doctest::Contains("attention.layer_norm_epsilon is 1e-05, and \"glm5_next\" has 1e-06"),
                         larql::error);
}

TEST_CASE("gguf rules: which layers have no experts is told by tensors, and by lists where a class reads only these") {
    const larql::testing::temporary_folder folder;
    // As transformers saves it, with the list alone.
    const fs::path listed = changed_case("glm4_moe_lite_gguf", folder / "listed", [](json& config) {
        config.erase("first_k_dense_replace");
        config["mlp_layer_types"] = {"dense", "sparse"};
    });
    const gguf_file file = convert(listed, folder / "listed.gguf");
    CHECK(file.get<int>("deepseek2.leading_dense_block_count") == 1);
    convert(data + "/hf/glm5_next_gguf", folder / "whole.gguf");
    conversion(checkpoint::open(folder / "whole.gguf"), folder / "back", {.form = attention_form::factored}).run();
    CHECK(checkpoint::open(folder / "back").config_json().at("mlp_layer_types") ==
          json({"dense", "sparse", "sparse", "sparse"}));
    const fs::path two =
        changed_case("glm4_moe_lite_gguf", folder / "two", [](json& config) { config["first_k_dense_replace"] = 2; });
    CHECK(contains(refusal(two, folder / "two.gguf"),
                   "first_k_dense_replace: is 2, and the first layer with the tensors of experts is 1"));
    const fs::path gap = changed_case(
        "glm5_next_gguf", folder / "gap", [](json&) {}, {}, "layers.2.mlp.gate.weight");
    CHECK(contains(refusal(gap, folder / "gap.gguf"), "and here one follows"));
}

TEST_CASE("gguf rules: layers with linear attention say of the indexer what the configuration says of them") {
    const larql::testing::temporary_folder folder;
    constexpr const char* key = "glm5-next.attention.indexer.types";
    for (const bool full : {true, false}) {
        const fs::path from = changed_case("glm5_next_gguf", folder / (full ? "full" : "shared"), [&](json& config) {
            config["text_config"]["indexer_types"] = {"full", "shared", full ? "full" : "shared", "full"};
        });
        const fs::path out = folder / (full ? "full.gguf" : "shared.gguf");
        CHECK(convert(from, out).get<std::vector<bool>>(key) == std::vector<bool>{true, false, full, true});
        CHECK(checkpoint::open(out).config().blocks[1].indexer.shared);
    }
    // By a period and by a pattern, too: layers 0 and 3 are full.
    const fs::path period = changed_case("glm5_next_gguf", folder / "period", [](json& config) {
        config["text_config"].erase("indexer_types");
        config["text_config"]["index_topk_freq"] = 3;
        config["text_config"]["index_skip_topk_offset"] = 1;
    });
    CHECK(convert(period, folder / "period.gguf").get<std::vector<bool>>(key) ==
          std::vector<bool>{true, false, true, true});
}
