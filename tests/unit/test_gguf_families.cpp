// SPDX-License-Identifier: Apache-2.0
//
// GGUF of the families of latent attention, held against what llama.cpp's converter wrote of the same folder.
#include <larql/convert.hpp>
#include <larql/detail/model/stored_otherwise.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>
#include <support/changed_case.hpp>
#include <support/converted.hpp>
#include <support/files.hpp>
#include <support/gguf_files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
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
using larql::gguf_file;
using larql::testing::changed_case;
using larql::testing::error_against;
using larql::testing::names_of;

const std::string data = LARQL_TEST_DATA;
const conversion_options to_gguf{.form = attention_form::factored, .to = container::gguf};

std::vector<std::string> convert(const fs::path& from, const fs::path& to, const conversion_options& options) {
    conversion made(checkpoint::open(from), to, options);
    made.run();
    return made.warnings();
}

std::string refusal(const fs::path& from, const fs::path& to) {
    try {
        convert(from, to, to_gguf);
    } catch (const larql::error& e) {
        CHECK(!fs::exists(to));
        return e.what();
    }
    return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

/// The name that a tensor has where the language model stands by itself.
std::string without_wrapper(std::string name) {
    for (const std::string_view wrapper : {"model.language_model.", "language_model.model."})
        if (name.starts_with(wrapper)) return "model." + name.substr(wrapper.size());
    const std::string_view beside = "language_model.";
    return name.starts_with(beside) ? name.substr(beside.size()) : name;
}

/// Whether a name is of what sees beside the language model.
bool is_of_tower(const std::string& name) {
    return contains(name, "vision") || contains(name, "visual") || contains(name, "projector");
}

/// Every tensor of the language model, in name, type, shape and bits.
void check_came_back(const checkpoint& back, const checkpoint& published) {
    std::size_t carried = 0;
    for (const larql::tensor_info& info : published.tensors()) {
        const std::string name = without_wrapper(std::string(info.name));
        if (is_of_tower(name)) continue;
        CAPTURE(name);
        const larql::tensor_info& same = back.safetensors()->at_tensor(name);
        CHECK(same.type == info.type);
        CHECK(same.shape == info.shape);
        CHECK(std::ranges::equal(back.bytes(same), published.bytes(info)));
        ++carried;
    }
    CHECK(back.tensors().size() == carried);
}

/// A case of both containers.
struct gguf_case {
    const char* name;
    const char* family;
    /// What llama.cpp's converter leaves out and its programs read: without it the file would not be the model.
    std::set<std::string_view> beyond{};
    bool runs = true;     ///< transformers computed the attention
    bool returns = true;  ///< transformers has words for what GGUF says
};
const gguf_case cases[] = {
    {"minicpm3_gguf", "minicpm3"},
    {"youtu_gguf", "youtu"},
    {"glm4_moe_lite_gguf", "glm4_moe_lite", {"deepseek2.expert_gating_func"}},
    {"glm_moe_dsa_gguf", "glm_moe_dsa", {"glm-dsa.expert_gating_func"}, false},
    {"mistral4_gguf",
     "mistral4",
     {"mistral4.expert_gating_func", "mistral4.attention.temperature_scale", "mistral4.attention.temperature_length"}},
    {"mistral_large_3_gguf", "mistral_large_3", {}, true, false},
    {"plm_gguf", "plm", {}, false},
    {"kimi_linear_gguf", "kimi_linear"},
    {"kimi_vl_gguf", "deepseek_v3"},
    {"bailing_gguf", "bailing_hybrid"},
    {"glm5_next_gguf", "glm5_next"},
};

}  // namespace

TEST_CASE("gguf families: the file is what llama.cpp's converter writes, and the way back loses nothing") {
    const larql::testing::temporary_folder folder;
    for (const gguf_case& one : cases) {
        CAPTURE(one.name);
        const checkpoint published = checkpoint::open(data + "/hf/" + one.name);
        CHECK(published.config().family == one.family);
        const fs::path made = folder.path() / (std::string(one.name) + ".gguf");
        convert(data + "/hf/" + one.name, made, to_gguf);
        const gguf_file got = gguf_file::open(made), want = gguf_file::open(data + "/gguf/" + one.name + "-bf16.gguf");
        larql::testing::check_same_tensors(got, want);
        for (const std::string_view key : one.beyond) {
            CAPTURE(key);
            CHECK(got.find_value(key) != nullptr);
            CHECK(want.find_value(key) == nullptr);
        }
        larql::testing::check_same_metadata(got, want, one.beyond);
        const checkpoint read = checkpoint::open(made);
        if (one.runs) CHECK(error_against(one.name, read, attention_form::factored) <= 2e-5);
        const larql::verify_report report = larql::verify(published, read);
        CHECK(report.holds());
        const bool is_wrapper = published.name_prefix() != "model." && !published.family().params_json;
        CHECK(report.towers.empty() != is_wrapper);
        for (const std::string& tower : report.towers) CHECK(is_of_tower(tower));
        if (!one.returns) {
            CHECK_THROWS_WITH_AS(convert(made, folder.path() / one.name, {.form = attention_form::factored}),
                                 doctest::Contains("temperature_scale"), larql::error);
            continue;
        }
        convert(made, folder.path() / one.name, {.form = attention_form::factored});
        const checkpoint back = checkpoint::open(folder.path() / one.name);
        check_came_back(back, published);
        CHECK(back.config().num_nextn_predict_layers == published.config().num_nextn_predict_layers);
        // Stated though there are none: classes of these models have one by default.
        CHECK((back.config_json().contains("num_nextn_predict_layers") || !back.family().gguf_output.keeps_predicting));
        if (one.runs) CHECK(error_against(one.name, back, attention_form::factored) <= 2e-5);
    }
}

TEST_CASE("gguf families: the older dialect holds the same, in prediction blocks, too") {
    const larql::testing::temporary_folder folder;
    conversion_options whole = to_gguf;
    whole.split_kv_b = false;
    for (const std::string name : {"glm_moe_dsa_gguf", "glm4_moe_lite_gguf", "mistral4_gguf", "minicpm3_gguf",
                                   "kimi_linear_gguf", "youtu_gguf", "bailing_gguf", "glm5_next_gguf"}) {
        CAPTURE(name);
        const fs::path old = folder.path() / (name + "-old.gguf"), current = folder.path() / (name + ".gguf");
        const fs::path again = folder.path() / (name + "-again.gguf"), direct = folder.path() / (name + "-direct.gguf");
        convert(data + "/hf/" + name, old, whole);
        for (const std::string& tensor : names_of(checkpoint::open(old))) {
            CHECK(!contains(tensor, "attn_k_b"));
            CHECK(!contains(tensor, "attn_v_b"));
        }
        convert(old, current, to_gguf);
        larql::testing::check_same_tensors(gguf_file::open(current),
                                           gguf_file::open(data + "/gguf/" + name + "-bf16.gguf"));
        convert(data + "/hf/" + name, direct, to_gguf);
        larql::testing::check_same_metadata(gguf_file::open(current), gguf_file::open(direct));
        convert(current, again, whole);
        larql::testing::check_same_tensors(gguf_file::open(again), gguf_file::open(old));
        convert(old, folder.path() / name, {.form = attention_form::factored});
        check_came_back(checkpoint::open(folder.path() / name), checkpoint::open(data + "/hf/" + name));
    }
}

TEST_CASE("gguf families: prediction blocks stay where llama.cpp has them, and a warning says where not") {
    const larql::testing::temporary_folder folder;
    const fs::path kept = folder.path() / "kept.gguf", left = folder.path() / "left.gguf";
    CHECK(convert(data + "/hf/glm_moe_dsa_gguf", kept, to_gguf).empty());
    const gguf_file file = gguf_file::open(kept);
    CHECK(file.get<int>("glm-dsa.block_count") == 4);
    CHECK(file.get<int>("glm-dsa.nextn_predict_layers") == 1);
    for (const char* name :
         {"blk.3.nextn.eh_proj.weight", "blk.3.nextn.enorm.weight", "blk.3.nextn.hnorm.weight",
          "blk.3.nextn.embed_tokens.weight", "blk.3.nextn.shared_head_norm.weight",
          "blk.3.nextn.shared_head_head.weight", "blk.3.attn_k_b.weight", "blk.3.indexer.proj.weight"})
        CHECK(file.find_tensor(name) != nullptr);

    // One that the configuration does not count, and one of a family whose files have none.
    const fs::path uncounted = changed_case("glm_moe_dsa_gguf", folder / "uncounted",
                                            [](nlohmann::json& config) { config.erase("num_nextn_predict_layers"); });
    for (const fs::path& from : {uncounted, changed_case("youtu_gguf", folder / "youtu", [](nlohmann::json&) {},
                                                         {"model.layers.2.enorm.weight"})}) {
        const std::vector<std::string> warnings = convert(from, left, to_gguf);
        REQUIRE(warnings.size() == 1);
        CHECK(contains(warnings.front(), "blocks that predict further tokens"));
        for (const std::string& tensor : names_of(checkpoint::open(left))) CHECK(!contains(tensor, "nextn"));
        fs::remove(left);
    }
}

TEST_CASE("gguf families: a tower beside the language model is left out with a warning, and nowhere else") {
    const larql::testing::temporary_folder folder;
    const std::vector<std::string> warnings =
        convert(data + "/hf/mistral4_gguf", folder.path() / "wrapped.gguf", to_gguf);
    REQUIRE(warnings.size() == 2);
    CHECK(contains(warnings[0], "model.multi_modal_projector"));
    CHECK(contains(warnings[1], "model.vision_tower"));
    const fs::path plain =
        changed_case("youtu_gguf", folder / "plain", [](nlohmann::json&) {}, {"model.vision_tower.norm.weight"});
    CHECK(contains(refusal(plain, folder.path() / "plain.gguf"), "model.vision_tower.norm.weight"));
}

TEST_CASE("gguf families: what the architecture has no words for is refused by name") {
    const larql::testing::temporary_folder folder;
    const fs::path out = folder.path() / "out.gguf";
    const auto refused = [&](const std::string& name, const std::string& key, const nlohmann::json& value) {
        const fs::path from =
            changed_case(name, folder / (name + key), [&](nlohmann::json& config) { config[key] = value; });
        return refusal(from, out);
    };
    CHECK(contains(refused("minicpm3_gguf", "dim_model_base", 128), "dim_model_base"));
    CHECK(contains(refused("minicpm3_gguf", "scale_depth", 1.5), "scale_depth"));
    CHECK(contains(refused("plm_gguf", "hidden_act", "silu"), "hidden_act"));
    CHECK(contains(refused("youtu_gguf", "hidden_act", "relu2"), "hidden_act"));
    CHECK(contains(refusal(data + "/hf/minicpm3_b", out), "rotary embedding"));  // longrope's magnitude
    CHECK(contains(refusal(data + "/hf/kimi_linear_b", out), "one number for it and for num_attention_heads"));
    CHECK(contains(refused("kimi_linear_gguf", "moe_renormalize", false), "moe_renormalize"));
    CHECK(contains(refused("bailing_gguf", "kda_safe_gate", false), "kda_safe_gate"));
    CHECK(contains(refused("bailing_gguf", "linear_num_heads", 2), "one number for it and for num_attention_heads"));
    CHECK(contains(refusal(data + "/hf/bailing_hybrid_b", out), "moe_shared_expert_intermediate_size"));
    for (const char* size : {"num_heads", "head_dim", "short_conv_kernel_size"}) {
        const fs::path from = changed_case("kimi_linear_gguf", folder / size,
                                           [&](nlohmann::json& config) { config["linear_attn_config"].erase(size); });
        CHECK(contains(refusal(from, out), std::string("linear_attn_config.") + size));
    }
    const auto of_text = [&](const char* key, const nlohmann::json& value) {
        return refusal(changed_case("glm5_next_gguf", folder / (std::string("text") + key),
                                    [&](nlohmann::json& config) { config["text_config"][key] = value; }),
                       out);
    };
    CHECK(contains(of_text("linear_lower_bound", nullptr), "gate_lower_bound: expected a number, got null"));
    CHECK(contains(of_text("linear_num_heads", 2), "one number for it and for num_attention_heads, 3, got 2"));
    CHECK(contains(of_text("hidden_act", "gelu"), "hidden_act"));
    for (const char* key : {"hc_mult", "hc_sinkhorn_iters", "hc_eps"}) {
        const fs::path from = changed_case("glm5_next_gguf", folder / key,
                                           [&](nlohmann::json& config) { config["text_config"].erase(key); });
        CHECK(contains(refusal(from, out), std::string(key) + ": required to describe the layers"));
    }
    const fs::path other_heads = changed_case("kimi_linear_gguf", folder / "heads", [](nlohmann::json& config) {
        config["linear_attn_config"]["num_heads"] = 2;
    });
    CHECK(contains(refusal(other_heads, out), "one number for it and for num_attention_heads, 3, got 2"));
    for (const char* name : {"longcat_flash_b", "axk1_b", "axk2_b", "hy_v4_vl", "mistral_large4"})
        CHECK(contains(refusal(data + "/hf/" + name, out), "llama.cpp has no architecture for it"));
    for (const auto& [name, architecture] :
         {std::pair{"hy_v4", "\"hy_v4\""}, std::pair{"dots3_note_b", "\"dots3note\""}})
        CHECK(contains(refusal(data + "/hf/" + name, out), std::string("llama.cpp's ") + architecture));
    CHECK(contains(refusal(data + "/hf/axk1_b", out), "no place for its norms after experts"));
}

TEST_CASE("gguf families: a dense layer has the same name in GGUF, whatever transformers calls it") {
    const larql::testing::temporary_folder folder;
    const checkpoint published = checkpoint::open(data + "/hf/kimi_linear_gguf");
    const auto as_saved = [](std::string name) {
        const std::size_t at = name.find("layers.0.mlp.");
        return at == name.npos ? name : name.replace(at, 13, "layers.0.block_sparse_moe.");
    };
    fs::create_directories(folder / "saved");
    larql::testing::write_file(folder / "saved/config.json", published.config_json().dump());
    larql::safetensors_writer writer(folder / "saved/model.safetensors");
    for (const larql::tensor_info& info : published.tensors())
        writer.add_tensor(as_saved(std::string(info.name)), info.type, info.shape);
    for (const larql::tensor_info& info : published.tensors())
        writer.write(as_saved(std::string(info.name)), published.bytes(info));
    writer.commit();
    convert(folder / "saved", folder / "out.gguf", to_gguf);
    larql::testing::check_same_tensors(gguf_file::open(folder / "out.gguf"),
                                       gguf_file::open(data + "/gguf/kimi_linear_gguf-bf16.gguf"));
}

TEST_CASE("gguf families: a base of rotation that is not the usual one is stated where the converter states none") {
    const larql::testing::temporary_folder folder;
    const fs::path from = changed_case("minicpm3_gguf", folder / "in",
                                       [](nlohmann::json& config) { config["rope_parameters"]["rope_theta"] = 700.0; });
    convert(from, folder.path() / "out.gguf", to_gguf);
    CHECK(gguf_file::open(folder.path() / "out.gguf").get<float>("minicpm3.rope.freq_base") == 700.0F);
    const gguf_file usual = gguf_file::open(data + "/gguf/minicpm3_gguf-bf16.gguf");
    CHECK(usual.find_value("minicpm3.rope.freq_base") == nullptr);
}

TEST_CASE("gguf families: groups of experts are stated where there are several, though the converter states none") {
    const larql::testing::temporary_folder folder;
    const fs::path out = folder.path() / "out.gguf";
    convert(
        changed_case("kimi_linear_gguf", folder / "in", [](nlohmann::json& config) { config["num_expert_group"] = 3; }),
        out, to_gguf);
    CHECK(gguf_file::open(out).get<int>("kimi-linear.expert_group_count") == 3);
    convert(out, folder.path() / "back", {.form = attention_form::factored});
    const nlohmann::json back = checkpoint::open(folder.path() / "back").config_json();
    CHECK(back.at("num_expert_group") == 3);
    CHECK(back.at("num_experts_per_token") == 2);
    CHECK(back.at("linear_attn_config") ==
          nlohmann::json({{"short_conv_kernel_size", 4}, {"head_dim", 8}, {"num_heads", 3}}));
}

TEST_CASE("gguf families: a rate of forgetting is minus an exponential, and its logarithm comes back") {
    using larql::detail::logarithm_of_minus;
    using larql::detail::minus_exponential;
    CHECK(minus_exponential(0.0F) == -1.0F);
    CHECK(minus_exponential(2.5F) == -12.182494F);
    // Every bfloat16, even where another program's exponential is one bit off; and every float32 from 1 on.
    for (std::uint32_t high = 0; high < 0x10000; ++high) {
        const auto number = std::bit_cast<float>(high << 16);
        if (!(std::fabs(number) < 10.0F) || std::fabs(number) < 0x1p-12F) continue;
        const float rate = minus_exponential(number);
        for (const float stored : {rate, std::nextafter(rate, 0.0F), std::nextafter(rate, -1e30F)})
            if (logarithm_of_minus(stored) != number) FAIL_CHECK(number << " comes back as another number");
    }
    for (float number = 1.0F; number < 3.0F; number += 0.00123F)
        if (logarithm_of_minus(minus_exponential(number)) != number)
            FAIL_CHECK(number << " comes back as another number");
    CHECK(std::isnan(logarithm_of_minus(1.0F)));
}
