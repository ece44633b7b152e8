// SPDX-License-Identifier: Apache-2.0
#include <larql/convert.hpp>
#include <larql/detail/verify/steps.hpp>
#include <larql/detail/verify/verification.hpp>
#include <larql/gguf_writer.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>
#include <support/files.hpp>
#include <support/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using larql::attention_form;
using larql::checkpoint;
using larql::dtype;
using larql::errc;
using larql::tensor_agreement;
using larql::tensor_check;
using larql::verify;
using larql::verify_report;

const std::string data = LARQL_TEST_DATA;

checkpoint open_data(const std::string& name) { return checkpoint::open(data + "/" + name); }

std::size_t count(const verify_report& report, tensor_agreement agreement) {
    return static_cast<std::size_t>(
        std::ranges::count_if(report.tensors, [&](const tensor_check& check) { return check.result == agreement; }));
}

const tensor_check* find(const verify_report& report, const std::string& name) {
    const auto found = std::ranges::find_if(
        report.tensors, [&](const tensor_check& check) { return check.name_a == name || check.name_b == name; });
    return found == report.tensors.end() ? nullptr : &*found;
}

/// The names of tensors that differ.
std::set<std::string> different(const verify_report& report) {
    std::set<std::string> names;
    for (const tensor_check& check : report.tensors)
        if (!check.holds()) names.insert(check.name_b);
    return names;
}

double worst_attention(const verify_report& report) {
    double worst = 0.0;
    for (const larql::attention_check& check : report.attention) worst = std::max(worst, check.error);
    return worst;
}

/// A tensor on its way into a copy.
struct copied {
    std::string name;
    dtype type;
    std::vector<std::uint64_t> shape;
    std::vector<std::byte> bytes;
};
/// Changes a tensor; false leaves it out.
using edit = std::function<bool(copied&)>;

std::vector<copied> edited(const checkpoint& model, const edit& change) {
    std::vector<copied> out;
    for (const larql::tensor_info& info : model.tensors()) {
        const auto bytes = model.bytes(info);
        copied tensor{std::string(info.name), info.type, info.shape, {bytes.begin(), bytes.end()}};
        if (change(tensor)) out.push_back(std::move(tensor));
    }
    return out;
}

/// A copy in the same container.
fs::path copy_model(const checkpoint& model, const fs::path& folder, const edit& change) {
    fs::create_directories(folder);
    const std::vector<copied> tensors = edited(model, change);
    const auto write = [&](auto& writer) {
        for (const copied& tensor : tensors) writer.add_tensor(tensor.name, tensor.type, tensor.shape);
        for (const copied& tensor : tensors) writer.write(tensor.name, tensor.bytes);
        writer.commit();
    };
    if (const auto file = model.gguf()) {
        larql::gguf_writer writer(folder / "model.gguf");
        for (const auto& [key, value] : file->metadata()) writer.set(key, value);
        write(writer);
        return folder / "model.gguf";
    }
    larql::testing::write_file(folder / "config.json", model.config_json().dump());
    larql::safetensors_writer writer(folder / "model.safetensors");
    write(writer);
    return folder;
}

edit flip_last_bit(const std::string& name) {
    return [name](copied& tensor) {
        if (tensor.name == name) tensor.bytes[tensor.bytes.size() / 4 * 2] ^= std::byte{1};
        return true;
    };
}
edit leave_out(const std::string& name) {
    return [name](copied& tensor) { return tensor.name != name; };
}

/// A tensor of floats in another type.
void requantise(copied& tensor, dtype type) {
    const larql::dtype_traits &from = larql::traits_of(tensor.type), &to = larql::traits_of(type);
    std::vector<float> values(tensor.bytes.size() / from.block_bytes);
    larql::dequantize(tensor.type, tensor.bytes, values);
    tensor.bytes.resize(values.size() / to.block_elements * to.block_bytes);
    (void)larql::quantize(type, values, tensor.bytes);
    tensor.type = type;
}

}  // namespace

TEST_CASE("verify: one model in two containers and dialects agrees, in every tensor") {
    for (const std::string name : {"deepseek_v2", "deepseek_v3", "deepseek_v3_bias", "kimi_k2", "llama3", "qwen3",
                                   "glm_moe_dsa", "deepseek_v32_yarn"}) {
        CAPTURE(name);
        const checkpoint published = open_data("hf/" + name);
        const verify_report report = verify(published, open_data("gguf/" + name + "-bf16.gguf"));
        CHECK(report.holds());
        CHECK(worst_attention(report) < 1e-6);
        CHECK(report.attention.size() == published.attention_blocks());
        // All numbers are bf16 in both; what llama.cpp stores as F32, joins or permutes is equal, the rest identical.
        CHECK(count(report, tensor_agreement::identical) > 0);
        CHECK(count(report, tensor_agreement::identical) + count(report, tensor_agreement::equal) ==
              report.tensors.size());
        CHECK(report.tensors.size() == published.tensors().size());
        for (const larql::attention_check& check : report.attention) CHECK(check.not_compared.empty());
    }
}

TEST_CASE("verify: an older file of float16 numbers agrees with the newer one") {
    const verify_report report =
        verify(open_data("gguf/deepseek_v3-bf16.gguf"), open_data("gguf/deepseek_v3-old-f16.gguf"));
    CHECK(report.holds());
    CHECK(count(report, tensor_agreement::rounded) == 3);  // numbers below the normal range of F16
    CHECK(find(report, "blk.0.attn_k_b.weight + blk.0.attn_v_b.weight") != nullptr);
}

TEST_CASE("verify: absorbed copies agree") {
    const larql::testing::temporary_folder folder;
    int number = 0;
    for (const std::string source : {"hf/deepseek_v3", "gguf/kimi_k2-bf16.gguf", "hf/deepseek_v32_bias", "hf/hy_v4"}) {
        const checkpoint model = open_data(source);
        for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
            CAPTURE(source);
            CAPTURE(larql::to_string(form));
            const fs::path out = folder / std::to_string(number++);
            larql::convert_to_safetensors(model, out, {.form = form});
            const checkpoint converted = checkpoint::open(out);
            for (const verify_report& report : {verify(model, converted), verify(converted, model)}) {
                CHECK(report.holds());
                CHECK(worst_attention(report) < 1e-5);
                const bool changes = report.attention.front().form_a != report.attention.front().form_b;
                CHECK(changes == (form != attention_form::factored));
                // What all forms store as it is, is compared besides.
                const std::string output = converted.tensor_name(larql::tensor_role::o, 0);
                REQUIRE(find(report, output) != nullptr);
                CHECK(find(report, output)->holds());
            }
        }
    }
}

TEST_CASE("verify: bf16 products are not the same model, unless the tolerance says so") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("hf/deepseek_v3");
    larql::convert_to_safetensors(model, folder.path(), {.form = attention_form::dense, .type = dtype::bf16});
    const checkpoint converted = checkpoint::open(folder.path());
    const verify_report report = verify(model, converted);
    CHECK(!report.holds());
    CHECK(report.attention.front().problem.starts_with("error "));
    CHECK(verify(model, converted, {.tolerance = 0.05}).holds());
}

TEST_CASE("verify: one weight changed in its last bit is found and named") {
    const larql::testing::temporary_folder folder;
    int number = 0;
    const auto expect = [&](const std::string& source, const std::string& changed, const std::string& against) {
        CAPTURE(source);
        CAPTURE(changed);
        const checkpoint copy =
            checkpoint::open(copy_model(open_data(source), folder / std::to_string(number++), flip_last_bit(changed)));
        const verify_report report = verify(open_data(against), copy);
        CHECK(!report.holds());
        const std::set<std::string> names = different(report);
        REQUIRE(names.size() == 1);
        CHECK(names.begin()->find(changed) != std::string::npos);
        CHECK(find(report, *names.begin())->numbers_differing == 1);
        CHECK(worst_attention(report) < 1e-2);
    };
    const std::string hf = "hf/deepseek_v3", gguf = "gguf/deepseek_v3-bf16.gguf";
    for (const std::string name :
         {"lm_head.weight", "model.norm.weight", "model.layers.0.mlp.down_proj.weight",
          "model.layers.1.mlp.experts.2.up_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias",
          "model.layers.1.self_attn.kv_b_proj.weight", "model.layers.0.self_attn.q_a_layernorm.weight",
          "model.layers.1.self_attn.o_proj.weight"}) {
        expect(hf, name, hf);
        expect(hf, name, gguf);
    }
    for (const std::string name : {"blk.0.attn_k_b.weight", "blk.1.attn_v_b.weight", "blk.1.ffn_gate_exps.weight",
                                   "blk.1.ffn_gate_inp.weight", "token_embd.weight", "blk.0.attn_q_b.weight"}) {
        expect(gguf, name, hf);
        expect(gguf, name, gguf);
    }
    expect("gguf/llama3-bf16.gguf", "blk.1.attn_q.weight", "hf/llama3");  // whose rows lie in another order
    expect("gguf/llama3-bf16.gguf", "blk.0.attn_k.weight", "hf/llama3");
    expect("hf/deepseek_v3_bias", "model.layers.0.self_attn.q_a_proj.bias", "gguf/deepseek_v3_bias-bf16.gguf");
    expect("hf/glm_moe_dsa", "model.layers.0.self_attn.indexer.wk.weight", "gguf/glm_moe_dsa-bf16.gguf");
}

TEST_CASE("verify: a wrapper's tensors are the model's, wherever its output stands, and towers are named apart") {
    const checkpoint model = open_data("hf/deepseek_v3"), gguf = open_data("gguf/deepseek_v3-bf16.gguf");
    const std::string inner = "model.";
    const nlohmann::json wrapper = {{"model_type", "some_vision_model"},
                                    {"architectures", {"SomeForConditionalGeneration"}},
                                    {"text_config", model.config_json()},
                                    {"vision_config", {{"hidden_size", 8}}}};
    struct placed {
        std::string prefix, output;  ///< what stands before the model's names, and before lm_head
    };
    for (const auto& [prefix, output] : {placed{"language_model.model.", "language_model."},
                                         placed{"language_model.model.", ""}, placed{"model.language_model.", ""}}) {
        CAPTURE(prefix);
        CAPTURE(output);
        const larql::testing::temporary_folder folder;
        int copies = 0;
        // The model in a wrapper, with one of its tensors, named as in the plain model, under another name.
        const auto wrapped_with = [&](const std::string& name, const std::string& instead) {
            const fs::path made = copy_model(model, folder / std::to_string(copies++), [&](copied& tensor) {
                const bool is_inner = tensor.name.starts_with(inner);
                tensor.name = tensor.name == name ? instead
                              : is_inner          ? prefix + tensor.name.substr(inner.size())
                                                  : output + tensor.name;
                return true;
            });
            larql::testing::write_file(made / "config.json", wrapper.dump());
            return checkpoint::open(made);
        };
        {
            const checkpoint wrapped = wrapped_with("", "");
            CHECK(wrapped.tensor_name(larql::tensor_role::output, 0) == output + "lm_head.weight");
            const verify_report report = verify(wrapped, gguf);
            CHECK(report.holds());
            CHECK(report.towers.empty());
            CHECK(find(report, output + "lm_head.weight") != nullptr);
        }
        const std::string norm = "model.norm.weight";
        // A tower is one of its own: what the model lost is missing all the same.
        const std::string tower = "vision_tower.norm.weight";
        const checkpoint seeing = wrapped_with(norm, tower);
        for (const verify_report& report : {verify(seeing, gguf), verify(gguf, seeing)}) {
            CHECK(report.towers == std::vector<std::string>{tower});
            CHECK(report.only_in_a.size() + report.only_in_b.size() == 1);
        }
        CHECK(verify(seeing, model).only_in_a == std::vector<std::string>{tower});  // both could have it
        // None is what lies within the model's layers, or where another model's attention would.
        for (const std::string& extra :
             {prefix + "layers.0.vision_gate.weight", prefix + "layers.0.mlp.visual.weight",
              std::string("other.layers.0.self_attn.o_proj.weight"), std::string("layers.0.self_attn.o_proj.weight")}) {
            CAPTURE(extra);
            const verify_report report = verify(wrapped_with(norm, extra), gguf);
            CHECK(report.only_in_a == std::vector<std::string>{extra});
            CHECK(report.towers.empty());
        }
        // Of two outputs one is the model's, and the other is not passed over.
        const verify_report two =
            verify(wrapped_with(norm, output.empty() ? "head.lm_head.weight" : "lm_head.weight"), gguf);
        CHECK(two.only_in_a.size() == 1);
    }
    // In a model that is no wrapper nothing is a tower.
    const larql::testing::temporary_folder folder;
    const checkpoint plain = checkpoint::open(copy_model(model, folder / "plain", [](copied& tensor) {
        if (tensor.name == "model.norm.weight") tensor.name = "vision_tower.norm.weight";
        return true;
    }));
    CHECK(verify(plain, gguf).only_in_a == std::vector<std::string>{"vision_tower.norm.weight"});
    CHECK(verify(plain, gguf).towers.empty());
}

TEST_CASE("verify: missing and extra tensors are listed, whatever they are") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("hf/deepseek_v3");
    const std::string gone = "model.layers.1.mlp.experts.3.up_proj.weight";
    const checkpoint less = checkpoint::open(copy_model(model, folder / "a", leave_out(gone)));
    CHECK(verify(model, less).only_in_a == std::vector<std::string>{gone});
    CHECK(verify(less, model).only_in_b == std::vector<std::string>{gone});
    CHECK(!verify(model, less).holds());
    // Of a stacked tensor one expert, or all.
    CHECK(verify(open_data("gguf/deepseek_v3-bf16.gguf"), less).only_in_a ==
          std::vector<std::string>{"blk.1.ffn_up_exps.weight[3]"});
    const checkpoint without_all = checkpoint::open(copy_model(model, folder / "b", [](copied& tensor) {
        return tensor.name.find("experts.") == std::string::npos || tensor.name.find("up_proj") == std::string::npos ||
               tensor.name.find("shared") != std::string::npos;
    }));
    CHECK(verify(open_data("gguf/deepseek_v3-bf16.gguf"), without_all).only_in_a ==
          std::vector<std::string>{"blk.1.ffn_up_exps.weight"});
    // A tensor that no name row claims.
    const checkpoint more = checkpoint::open(copy_model(model, folder / "c", [](copied& tensor) {
        if (tensor.name == "lm_head.weight") tensor.name = "model.layers.2.eh_proj.weight";
        return true;
    }));
    const verify_report report = verify(more, model);
    CHECK(report.only_in_a == std::vector<std::string>{"model.layers.2.eh_proj.weight"});
    CHECK(report.only_in_b.empty());  // without an output projection the embedding stands for it, and differs
    CHECK(different(report) == std::set<std::string>{"lm_head.weight"});
    // Within attention.
    const checkpoint broken =
        checkpoint::open(copy_model(model, folder / "d", leave_out("model.layers.1.self_attn.o_proj.weight")));
    const verify_report attention = verify(model, broken);
    CHECK(attention.attention[0].holds());
    CHECK(attention.attention[1].problem.find("o_proj.weight") != std::string::npos);
}

TEST_CASE("verify: what a container or form does not carry is not missed") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("hf/deepseek_v3");
    const checkpoint more = checkpoint::open(copy_model(model, folder / "a", [&](copied& tensor) {
        if (tensor.name == "model.norm.weight") {
            copied scale = tensor;
            scale.name = "model.layers.0.self_attn.kv_b_proj.input_scale";
        }
        return true;
    }));
    CHECK(verify(model, more).holds());
    // A tied output: the embedding on one side, a copy of it on the other.
    std::vector<std::byte> embedding;
    const auto tied = [&](copied& tensor) {
        if (tensor.name == "model.embed_tokens.weight") embedding = tensor.bytes;
        return tensor.name != "lm_head.weight";
    };
    const checkpoint one = checkpoint::open(copy_model(model, folder / "b", tied));
    const checkpoint two = checkpoint::open(copy_model(model, folder / "c", [&](copied& tensor) {
        if (tensor.name == "lm_head.weight") tensor.bytes = embedding;
        return true;
    }));
    CHECK(verify(one, two).holds());
    CHECK(verify(two, one).holds());
    CHECK(!verify(one, model).holds());
}

TEST_CASE("verify: tensors of other types pass within their steps, and not beyond") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("gguf/deepseek_v3-bf16.gguf"), published = open_data("hf/deepseek_v3");
    int number = 0;
    for (const dtype type : {dtype::q8_0, dtype::q4_0, dtype::f16}) {
        CAPTURE(larql::to_string(type));
        const auto quantised = [&](bool broken) {
            return checkpoint::open(copy_model(model, folder / std::to_string(number++), [&](copied& tensor) {
                if (tensor.type == dtype::bf16 && tensor.name.find("ffn_") != std::string::npos) {
                    requantise(tensor, type);
                    // The first number of a block: a scale of two bytes, then the codes.
                    if (broken && tensor.name == "blk.0.ffn_up.weight")
                        tensor.bytes[type == dtype::f16 ? 100 : 2] ^=
                            type == dtype::f16 ? std::byte{0x40} : std::byte{4};
                }
                return true;
            }));
        };
        const verify_report report = verify(published, quantised(false));
        CHECK(report.holds());
        const tensor_check* up = find(report, "blk.0.ffn_up.weight");
        REQUIRE(up != nullptr);
        CHECK(up->result == (type == dtype::f16 ? tensor_agreement::equal : tensor_agreement::within_step));
        if (type != dtype::f16) {
            CHECK(up->largest_in_steps > 0.5);
            CHECK(up->largest_in_steps <= 1.0);
        }
        const verify_report broken = verify(published, quantised(true));
        CHECK(different(broken) == std::set<std::string>{"blk.0.ffn_up.weight"});
    }
}

TEST_CASE("verify: gains that a container stores with 1 added agree, and only all of them") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("gguf/llama3-bf16.gguf"), published = open_data("hf/llama3");
    const auto add_one = [&](bool all) {
        return [all](copied& tensor) {
            if (tensor.name != "blk.0.ffn_norm.weight") return true;
            std::vector<float> gains(tensor.bytes.size() / sizeof(float));
            std::memcpy(gains.data(), tensor.bytes.data(), tensor.bytes.size());
            for (std::size_t i = all ? 0 : 1; i < gains.size(); ++i) gains[i] += 1.0F;
            std::memcpy(tensor.bytes.data(), gains.data(), tensor.bytes.size());
            return true;
        };
    };
    const checkpoint shifted = checkpoint::open(copy_model(model, folder / "a", add_one(true)));
    CHECK(verify(published, shifted).holds());
    CHECK(count(verify(published, shifted), tensor_agreement::one_added) == 1);
    CHECK(!verify(model, shifted).holds());  // the same container
    CHECK(!verify(published, checkpoint::open(copy_model(model, folder / "b", add_one(false)))).holds());
}

TEST_CASE("verify: prediction blocks are matched, whole and split up-projections too") {
    const larql::testing::temporary_folder folder;
    const auto with_block = [&](const std::string& source, const std::string& from, const std::string& to,
                                const fs::path& out, bool changed) {
        const checkpoint model = open_data(source);
        std::vector<copied> all = edited(model, [](copied&) { return true; });
        const std::size_t own = all.size();
        for (std::size_t i = 0; i < own; ++i)
            if (all[i].name.starts_with(from)) {
                copied twin = all[i];
                twin.name = to + twin.name.substr(from.size());
                if (changed && twin.name.find("v_b") != std::string::npos) twin.bytes[0] ^= std::byte{1};
                all.push_back(std::move(twin));
            }
        std::size_t next = 0;
        fs::create_directories(out);
        const auto write = [&](auto& writer) {
            for (const copied& tensor : all) writer.add_tensor(tensor.name, tensor.type, tensor.shape);
            for (; next < all.size(); ++next) writer.write(all[next].name, all[next].bytes);
            writer.commit();
        };
        if (const auto file = model.gguf()) {
            larql::gguf_writer writer(out / "model.gguf");
            for (const auto& [key, value] : file->metadata()) writer.set(key, value);
            write(writer);
        } else {
            larql::testing::write_file(out / "config.json", model.config_json().dump());
            larql::safetensors_writer writer(out / "model.safetensors");
            write(writer);
        }
        return checkpoint::open(out);
    };
    const checkpoint a = with_block("hf/deepseek_v3", "model.layers.1.", "model.layers.2.", folder / "a", false);
    const checkpoint b = with_block("gguf/deepseek_v3-bf16.gguf", "blk.1.", "blk.2.", folder / "b", false);
    const checkpoint c = with_block("gguf/deepseek_v3-bf16.gguf", "blk.1.", "blk.2.", folder / "c", true);
    const verify_report report = verify(a, b);
    CHECK(report.holds());
    CHECK(find(report, "blk.2.attn_k_b.weight + blk.2.attn_v_b.weight") != nullptr);
    CHECK(different(verify(a, c)) == std::set<std::string>{"blk.2.attn_k_b.weight + blk.2.attn_v_b.weight"});
}

TEST_CASE("verify: parts together are the whole, and each knows what is missing") {
    const larql::testing::temporary_folder folder;
    const checkpoint a = open_data("hf/deepseek_v3");
    const checkpoint b = checkpoint::open(copy_model(a, folder / "a", leave_out("model.norm.weight")));
    const verify_report whole = verify(a, b);
    std::multiset<std::string> all, together;
    std::size_t blocks = 0;
    for (const tensor_check& check : whole.tensors) all.insert(check.name_a);
    for (std::size_t part = 1; part <= 3; ++part) {
        std::uint64_t total = 0;
        const verify_report report =
            verify(a, b, {.part = part, .parts = 3, .progress = [&](std::uint64_t done, std::uint64_t of) {
                              CHECK(done <= of);
                              total = of;
                          }});
        CHECK(total > 0);
        CHECK(report.only_in_a == whole.only_in_a);
        for (const tensor_check& check : report.tensors) together.insert(check.name_a);
        blocks += report.attention.size();
    }
    CHECK(together == all);
    CHECK(blocks == whole.attention.size());
    LARQL_CHECK_ERROR((void)verify(a, b, {.part = 4, .parts = 3}), errc::bad_value, "expected a part from 1 to 3");
}

TEST_CASE("verify: work is divided evenly, and in one way") {
    std::vector<std::uint64_t> bytes;
    for (std::uint64_t i = 0; i < 100; ++i) bytes.push_back(1000 + 37 * i % 400);
    const std::vector<std::size_t> part_of = larql::detail::divide_work(bytes, 7);
    std::vector<std::uint64_t> load(7);
    for (std::size_t i = 0; i < bytes.size(); ++i) load.at(part_of[i]) += bytes[i];
    const auto [least, most] = std::ranges::minmax(load);
    CHECK(most - least < 1400);
    CHECK(part_of == larql::detail::divide_work(bytes, 7));
}

TEST_CASE("verify: some layers, and layers that are not there") {
    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("hf/deepseek_v3");
    const checkpoint changed =
        checkpoint::open(copy_model(model, folder / "a", flip_last_bit("model.layers.0.mlp.up_proj.weight")));
    CHECK(!verify(model, changed).holds());
    CHECK(!verify(model, changed, {.layer_begin = 0, .layer_end = 1}).holds());
    const verify_report second = verify(model, changed, {.layer_begin = 1, .layer_end = 2});
    CHECK(second.holds());
    CHECK(second.attention.size() == 1);
    LARQL_CHECK_ERROR((void)verify(model, changed, {.layer_begin = 2}), errc::bad_value,
                      "attention blocks within 0 to 2");
    // A conversion of a part.
    larql::convert_to_safetensors(model, folder / "b", {.form = attention_form::dense, .layer_begin = 1});
    const checkpoint part = checkpoint::open(folder / "b");
    CHECK(verify(model, part).only_in_a == std::vector<std::string>{"attention block 0"});
    CHECK(verify(model, part, {.layer_begin = 1}).holds());
}

TEST_CASE("verify: configurations that compute otherwise are told apart") {
    const std::string gguf = data + "/gguf/mistral_swa-bf16.gguf";
    const checkpoint published = open_data("hf/mistral_swa");
    const verify_report report = verify(published, checkpoint::open(gguf));
    REQUIRE(report.configuration.size() == 1);
    CHECK(report.configuration.front() == "block 0: sliding_window 7 and 0, and in 1 other blocks");
    const nlohmann::json stated = larql::read_config_json(data + "/hf/mistral_swa/config.json");
    CHECK(verify(published, checkpoint::open(gguf, {.config = stated})).holds());

    const larql::testing::temporary_folder folder;
    const checkpoint model = open_data("hf/deepseek_v3");
    const auto with = [&](const char* key, const nlohmann::json& value) {
        const nlohmann::json over = {{key, value}};
        return verify(model, checkpoint::open(data + "/hf/deepseek_v3", {.config = over})).configuration;
    };
    CHECK(with("rope_theta", 10000).empty());
    CHECK(with("rope_theta", 20000).size() == 1);
    CHECK(with("routed_scaling_factor", 17.0).size() == 1);
    CHECK(with("rms_norm_eps", 1e-5).size() == 1);
}

TEST_CASE("verify: the steps of formats hold for what encoders make") {
    larql::testing::random_source random(5);
    std::vector<float> normal(256 * 64), outliers, unequal, tails, tiny;
    random.fill_normal(normal);
    outliers = unequal = tails = tiny = normal;
    for (std::size_t i = 0; i < normal.size(); ++i) {
        if (i % 97 == 0) outliers[i] *= 50.0F;
        unequal[i] *= std::exp2(-3.0F * static_cast<float>(i / 32 % 8));
        tails[i] *= tails[i] * tails[i] * tails[i] * tails[i];
        tiny[i] *= 1e-5F;
    }
    const auto worst_of = [](dtype type, const std::vector<float>& numbers, std::span<const std::byte> blocks) {
        std::vector<float> decoded(numbers.size()), steps(numbers.size());
        larql::dequantize(type, blocks, decoded);
        if (larql::traits_of(type).kind == larql::dtype_kind::block)
            larql::detail::steps_of_blocks(type, blocks, steps);
        else
            larql::detail::steps_of_floats(type, decoded, steps);
        double worst = 0.0;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            const double error = std::fabs(double{numbers[i]} - double{decoded[i]});
            if (error != 0.0) worst = std::max(worst, error / steps[i]);
        }
        return worst;
    };
    for (const dtype type : {dtype::f16, dtype::bf16, dtype::q8_0, dtype::q4_0, dtype::q4_k, dtype::q6_k})
        for (const std::vector<float>* numbers : {&normal, &outliers, &unequal, &tails, &tiny}) {
            CAPTURE(larql::to_string(type));
            const larql::dtype_traits& traits = larql::traits_of(type);
            std::vector<std::byte> blocks(numbers->size() / traits.block_elements * traits.block_bytes);
            (void)larql::quantize(type, *numbers, blocks);
            const double worst = worst_of(type, *numbers, blocks);
            CHECK(worst <= 1.0);
            if (numbers != &tiny) CHECK(worst > 0.3);  // a bound, and not a guess far above
        }
    // What ggml's own encoders made of the same numbers.
    const auto file = larql::gguf_file::open(data + "/ggml_types/ggml_types.gguf");
    std::vector<float> source(8 * 512);
    for (const larql::tensor_info& info : file.tensors())
        if (info.type == dtype::f32) file.read_rows(info, 0, info.rows(), source.data());
    std::size_t types = 0;
    for (const larql::tensor_info& info : file.tensors()) {
        CAPTURE(info.name);
        if (larql::traits_of(info.type).kind != larql::dtype_kind::block) continue;
        ++types;
        REQUIRE(larql::detail::find_step_rule(info.type) != nullptr);
        CHECK(worst_of(info.type, source, file.bytes(info)) <= 1.0);
        CHECK(worst_of(info.type, source, file.bytes(info)) > 0.25);
    }
    CHECK(types == 25);
}

TEST_CASE("verify: half a unit in the last place") {
    using larql::detail::half_unit_of_bf16;
    using larql::detail::half_unit_of_f16;
    CHECK(half_unit_of_f16(1.0) == 0x1p-11);
    CHECK(half_unit_of_f16(-1.999) == 0x1p-11);
    CHECK(half_unit_of_f16(65504.0) == 16.0);
    CHECK(half_unit_of_f16(0.0) == 0x1p-25);
    CHECK(half_unit_of_f16(0x1p-20) == 0x1p-25);
    CHECK(half_unit_of_bf16(1.0) == 0x1p-8);
    CHECK(half_unit_of_bf16(3.0) == 0x1p-7);
}

TEST_CASE("verify: the checksum of a file") {
    const larql::testing::temporary_folder folder;
    CHECK(larql::file_checksum(larql::testing::write_file(folder / "abc", "abc")) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const std::string million(1'000'000, 'a');
    CHECK(larql::file_checksum(larql::testing::write_file(folder / "a", million)) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    CHECK(larql::file_checksum(larql::testing::write_file(folder / "none", "")).starts_with("e3b0c442"));
    LARQL_CHECK_ERROR((void)larql::file_checksum(folder / "absent"), errc::io, "cannot open");
}
