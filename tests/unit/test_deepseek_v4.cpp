// SPDX-License-Identifier: Apache-2.0
//
// DeepSeek-V4 from files: against what transformers computed, under every spelling of its tensors' names, from both
// dialects of GGUF and from FP8; and what its configurations say.
#include <larql/checkpoint.hpp>
#include <larql/detail/model/families.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>
#include <support/files.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_mla.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_spec;
using larql::checkpoint;
using larql::errc;
using larql::model_config;
using larql::tensor;
using larql::testing::gguf_builder;
using larql::testing::le;
using larql::testing::relative_error;
using larql::testing::temporary_folder;
using nlohmann::json;

const std::string data = LARQL_TEST_DATA;
constexpr const char* cases[] = {"deepseek_v4_mixed", "deepseek_v4_ratios"};

std::string folder_of(const std::string& name) { return data + "/hf/" + name; }

/// Calls `use(layer, hidden, context, out)` for each block of a case.
template <class Use>
void each_block(const checkpoint& model, const std::string& name, Use use) {
    const auto reference = larql::safetensors_file::open(folder_of(name) + "/reference.safetensors");
    for (std::size_t b = 0; b < model.attention_blocks(); ++b) {
        const std::string layer = "layer" + std::to_string(b) + ".";
        use(model.attention(b, attention_form::factored), reference.read<2>(layer + "hidden"),
            reference.read<2>(layer + "context"), reference.read<2>(layer + "out"));
    }
}

/// The worst error of one pass.
double worst_error(const checkpoint& model, const std::string& name) {
    double worst = 0.0;
    each_block(model, name, [&](const auto& layer, const auto& hidden, const auto& context, const auto& out) {
        const auto got = layer.forward(hidden);
        for (const double error : {relative_error(got.context, context), relative_error(got.out, out)})
            if (!(error <= worst)) worst = error;
    });
    return worst;
}

struct stored_tensor {
    std::vector<std::uint64_t> shape;
    std::vector<float> values;
};
using stored_tensors = std::map<std::string, stored_tensor>;

stored_tensors tensors_of(const std::string& name) {
    const checkpoint model = checkpoint::open(folder_of(name));
    stored_tensors all;
    for (const larql::tensor_info& info : model.tensors()) {
        const larql::weight weight = model.weights().at(info.name);
        stored_tensor t{{weight.shape().begin(), weight.shape().end()}, {}};
        t.values.resize(static_cast<std::size_t>(weight.rows() * weight.columns()));
        weight.read_rows(0, weight.rows(), t.values.data(), static_cast<std::size_t>(weight.columns()));
        all[std::string(info.name)] = std::move(t);
    }
    return all;
}

json config_of(const std::string& name) { return larql::read_config_json(folder_of(name) + "/config.json"); }

/// `text` with every occurrence of the left sides replaced, in order.
using renames = std::vector<std::pair<std::string, std::string>>;
std::string renamed(std::string text, const renames& rules) {
    for (const auto& [from, to] : rules)
        for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
            text.replace(at, from.size(), to);
    return text;
}

void write_model(const std::filesystem::path& folder, const json& config, const stored_tensors& tensors) {
    larql::testing::write_file(folder / "config.json", config.dump());
    larql::safetensors_writer writer(folder / "model.safetensors", {.replace = true});
    for (const auto& [name, t] : tensors) writer.add_tensor(name, larql::dtype::f32, t.shape);
    for (const auto& [name, t] : tensors) writer.write(name, std::as_bytes(std::span(t.values)));
    writer.commit();
}

stored_tensors with_names(const stored_tensors& tensors, const renames& rules, const std::string& prefix = "") {
    stored_tensors out;
    for (const auto& [name, t] : tensors) out[prefix + renamed(name, rules)] = t;
    return out;
}

// Published names as transformers holds them in memory.
const renames in_memory{{".attn.", ".self_attn."},
                        {".indexer.compressor.", ".compressor.indexer."},
                        {".indexer.weights_proj", ".compressor.indexer.scorer.weights_proj"},
                        {".attn.indexer.wq_b", ".attn.compressor.indexer.q_b_proj"},
                        {".self_attn.indexer.wq_b", ".self_attn.compressor.indexer.q_b_proj"},
                        {"self_attn.q_norm", "self_attn.q_a_norm"},
                        {"compressor.norm", "compressor.kv_norm"},
                        {"indexer.norm", "indexer.kv_norm"},
                        {"attn_sink", "sinks"},
                        {".ape", ".position_bias"},
                        {".wq_a.", ".q_a_proj."},
                        {".wq_b.", ".q_b_proj."},
                        {".wkv.", ".kv_proj."},
                        {".wgate.", ".gate_proj."},
                        {".wo_a.", ".o_a_proj."},
                        {".wo_b.", ".o_b_proj."}};
// And in GGUF: llama.cpp's names, and those of "ds4" files.
const renames in_gguf{{"layers.", "blk."},
                      {".attn.indexer.compressor.wkv", ".indexer_compressor_kv"},
                      {".attn.indexer.compressor.wgate", ".indexer_compressor_gate"},
                      {".attn.indexer.compressor.ape", ".indexer_compressor_ape.weight"},
                      {".attn.indexer.compressor.norm", ".indexer_compressor_norm"},
                      {".attn.indexer.wq_b", ".indexer.attn_q_b"},
                      {".attn.indexer.weights_proj", ".indexer.proj"},
                      {".attn.compressor.wkv", ".attn_compressor_kv"},
                      {".attn.compressor.wgate", ".attn_compressor_gate"},
                      {".attn.compressor.ape", ".attn_compressor_ape.weight"},
                      {".attn.compressor.norm", ".attn_compressor_norm"},
                      {".attn.wq_a", ".attn_q_a"},
                      {".attn.q_norm", ".attn_q_a_norm"},
                      {".attn.wq_b", ".attn_q_b"},
                      {".attn.wkv", ".attn_kv"},
                      {".attn.kv_norm", ".attn_kv_a_norm"},
                      {".attn.wo_a", ".attn_output_a"},
                      {".attn.wo_b", ".attn_output_b"},
                      {".attn.attn_sink", ".attn_sinks.weight"}};
const renames in_ds4{{".indexer_compressor_ape.weight", ".indexer.compress_ape"},
                     {".attn_compressor_ape.weight", ".attn_compress_ape"},
                     {".indexer_compressor_", ".indexer.compress_"},
                     {".attn_compressor_", ".attn_compress_"},
                     {".attn_kv.", ".attn_kv_latent."},
                     {".attn_sinks.weight", ".attn_sinks"}};

/// A GGUF of these tensors, which have published names.
/// @param left_out  keys below "deepseek4." that the file does not have
gguf_builder gguf_of(const stored_tensors& tensors, const json& config, const std::vector<std::int32_t>& ratios,
                     const renames& dialect, const std::vector<std::string>& left_out = {}) {
    gguf_builder file;
    file.kv_string("general.architecture", "deepseek4");
    const auto wanted = [&](const std::string& key) { return std::ranges::find(left_out, key) == left_out.end(); };
    const auto integer = [&](const std::string& key, std::uint32_t value) {
        if (wanted(key)) file.kv("deepseek4." + key, gguf_builder::u32, le(value));
    };
    const auto number = [&](const std::string& key, float value) {
        if (wanted(key)) file.kv("deepseek4." + key, gguf_builder::f32, le(value));
    };
    const std::pair<const char*, const char*> sizes[] = {{"block_count", "num_hidden_layers"},
                                                         {"embedding_length", "hidden_size"},
                                                         {"context_length", "max_position_embeddings"},
                                                         {"attention.head_count", "num_attention_heads"},
                                                         {"attention.head_count_kv", "num_key_value_heads"},
                                                         {"attention.key_length", "head_dim"},
                                                         {"attention.value_length", "head_dim"},
                                                         {"attention.q_lora_rank", "q_lora_rank"},
                                                         {"attention.sliding_window", "sliding_window"},
                                                         {"attention.output_group_count", "o_groups"},
                                                         {"attention.output_lora_rank", "o_lora_rank"},
                                                         {"attention.indexer.head_count", "index_n_heads"},
                                                         {"attention.indexer.key_length", "index_head_dim"},
                                                         {"attention.indexer.top_k", "index_topk"},
                                                         {"rope.dimension_count", "qk_rope_head_dim"}};
    for (const auto& [key, stated] : sizes) integer(key, config.at(stated));
    const json& yarn = config["rope_scaling"];
    integer("rope.scaling.original_context_length", yarn["original_max_position_embeddings"]);
    if (wanted("rope.scaling.type")) file.kv_string("deepseek4.rope.scaling.type", "yarn");
    number("rope.scaling.factor", yarn["factor"]);
    number("rope.scaling.yarn_beta_fast", yarn["beta_fast"]);
    number("rope.scaling.yarn_beta_slow", yarn["beta_slow"]);
    number("rope.freq_base", config["rope_theta"]);
    number("attention.compress_rope_freq_base", config["compress_rope_theta"]);
    number("attention.layer_norm_rms_epsilon", config["rms_norm_eps"]);
    if (wanted("attention.compress_ratios")) {
        std::string all;
        for (const std::int32_t ratio : ratios) all += le(ratio);
        file.kv_array("deepseek4.attention.compress_ratios", gguf_builder::i32, ratios.size(), all);
    }
    integer("hash_layer_count", 0);
    number("hyper_connection.epsilon", 1e-6F);
    for (const auto& [tensor_name, t] : with_names(tensors, in_gguf))
        file.floats(renamed(tensor_name, dialect), {t.shape.rbegin(), t.shape.rend()}, t.values);
    return file;
}

/// A GGUF of a case.
gguf_builder gguf_of(const std::string& name, const renames& dialect, const std::vector<std::string>& left_out = {}) {
    const json config = config_of(name);
    const std::vector<std::int32_t> ratios = config.value("compress_ratios", std::vector<std::int32_t>{3, 0, 7});
    return gguf_of(tensors_of(name), config, ratios, dialect, left_out);
}

/// A small configuration of its own, for what configurations say.
json tiny_config(std::size_t layers = 6) {
    json config = config_of("deepseek_v4_mixed");
    config["num_hidden_layers"] = layers;
    for (const char* key : {"layer_types", "compress_rates"}) config.erase(key);
    return config;
}

std::vector<std::size_t> ratios_of(const json& config) {
    std::vector<std::size_t> ratios;
    for (const attention_spec& block : larql::parse_model_config(config).blocks)
        ratios.push_back(block.compression.ratio);
    return ratios;
}
using list = std::vector<std::size_t>;

std::string problem_of(const json& config) {
    return larql::testing::error_of([&] { return larql::parse_model_config(config); });
}

}  // namespace

TEST_CASE("deepseek_v4: computes what transformers computed, in one pass and in any chunks through a cache") {
    for (const char* name : cases) {
        CAPTURE(name);
        const checkpoint model = checkpoint::open(folder_of(name));
        CHECK(worst_error(model, name) <= 1e-5);
        each_block(model, name, [&](const auto& layer, const auto& hidden, const auto&, const auto& out) {
            CAPTURE(layer.spec().compression.ratio);
            const std::size_t tokens = hidden.shape(0), width = hidden.shape(1);
            for (const std::size_t size : {std::size_t{1}, std::size_t{6}, std::size_t{17}}) {
                auto cache = layer.make_cache(tokens, 0);
                std::vector<float> got;
                for (std::size_t t = 0; t < tokens; t += size) {
                    auto chunk = tensor<float, 2>::from_shape({std::min(size, tokens - t), width});
                    std::copy_n(hidden.data() + t * width, chunk.size(), chunk.data());
                    const auto r = layer.forward(chunk, cache);
                    got.insert(got.end(), r.out.begin(), r.out.end());
                }
                CHECK(relative_error(got, out) <= 1e-5);
            }
        });
    }
}

TEST_CASE("deepseek_v4: every number of a spec shows in the results") {
    struct change {
        const char* name;
        std::size_t block;  // of deepseek_v4_mixed: chosen entries, a window alone, entries
        void (*make)(attention_spec&);
    };
    const change changes[] = {
        {"window", 0, [](attention_spec& s) { ++s.sliding_window; }},
        {"window", 1, [](attention_spec& s) { --s.sliding_window; }},
        {"window", 2, [](attention_spec& s) { --s.sliding_window; }},
        {"sinks", 0, [](attention_spec& s) { s.sinks = false; }},
        {"sinks", 1, [](attention_spec& s) { s.sinks = false; }},
        {"theta", 0, [](attention_spec& s) { s.rope.theta = 500.0; }},
        {"theta", 1, [](attention_spec& s) { s.rope.theta = 70.0; }},
        {"theta", 2, [](attention_spec& s) { s.rope.theta = 500.0; }},
        {"scaling", 0, [](attention_spec& s) { s.rope.kind = larql::rope_kind::standard; }},
        {"scaling", 2, [](attention_spec& s) { s.rope.kind = larql::rope_kind::standard; }},
        {"magnitude", 2, [](attention_spec& s) { s.rope.attention_factor.reset(); }},
        {"pairing", 1, [](attention_spec& s) { s.geometry.pairing = larql::rope_pairing::half_split; }},
        {"scale", 1, [](attention_spec& s) { s.scale *= 1.1; }},
        {"top_k", 0, [](attention_spec& s) { ++s.compression.index_top_k; }},
        {"top_k", 0, [](attention_spec& s) { s.compression.index_top_k = 100; }},
        {"eps of latent", 1, [](attention_spec& s) { s.latent_norm.eps = 1e-6; }},
        {"eps of queries", 1, [](attention_spec& s) { s.q_norm.eps = 1e-6; }},
        {"norm of queries", 1, [](attention_spec& s) { s.q_norm.kind = larql::norm_kind::none; }},
        {"eps of keys", 1, [](attention_spec& s) { s.k_norm.eps = 1e-6; }},
        {"eps of entries", 0, [](attention_spec& s) { s.compression.norm.eps = 1e-6; }},
        {"eps of entries", 2, [](attention_spec& s) { s.compression.norm.eps = 1e-6; }},
    };
    const checkpoint model = checkpoint::open(folder_of("deepseek_v4_mixed"));
    const auto reference = larql::safetensors_file::open(folder_of("deepseek_v4_mixed") + "/reference.safetensors");
    for (const auto& [name, block, make] : changes) {
        CAPTURE(name);
        CAPTURE(block);
        attention_spec spec = model.spec(block);
        make(spec);
        auto weights = model.stored_weights(block);
        if (!spec.sinks) weights.vector(larql::tensor_role::sinks) = {};
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto got = larql::attention_layer<float>(spec, weights).forward(reference.read<2>(layer + "hidden"));
        CHECK(relative_error(got.out, reference.read<2>(layer + "out")) > 1e-4);
    }
}

TEST_CASE("deepseek_v4: tensors under every name that files and transformers have for them") {
    const json config = config_of("deepseek_v4_mixed");
    const stored_tensors published = tensors_of("deepseek_v4_mixed");
    const std::pair<renames, std::string> spellings[] = {
        {{}, "model."},
        {{{"attn.kv_norm", "attn.norm"}}, "model."},  // as transformers writes it
        {in_memory, "model."},
        {in_memory, ""},
    };
    for (const auto& [rules, prefix] : spellings) {
        const temporary_folder folder;
        const stored_tensors tensors = with_names(published, rules, prefix);
        CAPTURE(tensors.begin()->first);
        write_model(folder.path(), config, tensors);
        const checkpoint model = checkpoint::open(folder.path());
        CHECK(worst_error(model, "deepseek_v4_mixed") <= 1e-5);
        CHECK(model.name_prefix() == prefix);
    }
}

TEST_CASE("deepseek_v4: both dialects of GGUF, also without the keys that tensors imply") {
    const std::vector<std::string> implied{"attention.key_length",        "attention.value_length",
                                           "attention.q_lora_rank",       "attention.output_group_count",
                                           "attention.output_lora_rank",  "attention.compress_ratios",
                                           "rope.scaling.type",           "attention.indexer.head_count",
                                           "attention.indexer.key_length"};
    const temporary_folder folder;
    const auto path = folder / "m.gguf";
    for (const char* name : cases)
        for (const renames& dialect : {renames{}, in_ds4})
            for (const auto& left_out : {std::vector<std::string>{}, implied}) {
                CAPTURE(name);
                CAPTURE(dialect.size());
                CAPTURE(left_out.size());
                larql::testing::write_file(path, gguf_of(name, dialect, left_out).build());
                const checkpoint model = checkpoint::open(path);
                CHECK(worst_error(model, name) <= 2e-5);
                // What it would be as a config.json says the same.
                const model_config printed = larql::parse_model_config(model.config_json());
                CHECK(printed.blocks.size() == model.config().blocks.size());
                for (std::size_t b = 0; b < printed.blocks.size(); ++b) {
                    CHECK(printed.blocks[b].compression.ratio == model.spec(b).compression.ratio);
                    CHECK(printed.blocks[b].compression.overlapping == model.spec(b).compression.overlapping);
                    CHECK(larql::make_rope_table(printed.blocks[b].rope).frequencies ==
                          larql::make_rope_table(model.spec(b).rope).frequencies);
                }
            }
    renames third = in_ds4;
    third.push_back({".attn_kv_latent.", ".attn_kv_a_mqa."});
    larql::testing::write_file(path, gguf_of("deepseek_v4_mixed", third).build());
    CHECK(worst_error(checkpoint::open(path), "deepseek_v4_mixed") <= 2e-5);
}

TEST_CASE("deepseek_v4: GGUF metadata are held against the tensors") {
    const temporary_folder folder;
    const auto path = folder / "m.gguf";
    const auto problem = [&](const std::vector<std::string>& left_out, auto&& add) {
        gguf_builder file = gguf_of("deepseek_v4_mixed", {}, left_out);
        add(file);
        larql::testing::write_file(path, file.build());
        return larql::testing::error_of([&] { return checkpoint::open(path).config(); });
    };
    const auto nothing = [](gguf_builder&) {};
    // Blocks of a kind may differ, and then only larql has words for them.
    stored_tensors two = tensors_of("deepseek_v4_mixed");
    for (auto& [name, t] : stored_tensors(two))
        if (name.starts_with("layers.0.")) two[renamed(name, {{"layers.0.", "layers.1."}})] = t;
    stored_tensor& position = two["layers.1.attn.compressor.ape"];
    position.shape[0] = two["layers.1.attn.indexer.compressor.ape"].shape[0] = 2;
    position.values.resize(2 * 48);
    two["layers.1.attn.indexer.compressor.ape"].values.resize(2 * 20);
    gguf_builder file = gguf_of(two, config_of("deepseek_v4_mixed"), {3, 2, 7}, {});
    larql::testing::write_file(path, file.build());
    const checkpoint uneven = checkpoint::open(path);
    CHECK(uneven.spec(0).compression.ratio == 3);
    CHECK(uneven.spec(1).compression.ratio == 2);
    CHECK(uneven.spec(1).compression.overlapping);
    LARQL_CHECK_ERROR(uneven.config_json(), errc::unsupported_architecture, "blocks of a kind differ");
    LARQL_CHECK_ERROR_TEXT(problem({"attention.compress_ratios"},
                                   [](gguf_builder& f) {
                                       f.kv_array("deepseek4.attention.compress_ratios", gguf_builder::i32, 3,
                                                  le(3) + le(0) + le(128));
                                   }),
                           errc::shape_mismatch, "metadata says 128 for block 2, tensors imply 7");
    LARQL_CHECK_ERROR_TEXT(
        problem({"attention.q_lora_rank"},
                [](gguf_builder& f) { f.kv("deepseek4.attention.q_lora_rank", gguf_builder::u32, le(21U)); }),
        errc::shape_mismatch, "metadata says 21, tensors imply 20");
    LARQL_CHECK_ERROR_TEXT(problem({"attention.indexer.top_k"}, nothing), errc::missing_key, "index_topk");
    LARQL_CHECK_ERROR_TEXT(
        problem({"rope.scaling.type", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"}, nothing),
        errc::not_understood, "rope.scaling.factor is stated without a rope.scaling.type");
    LARQL_CHECK_ERROR_TEXT(problem({"rope.dimension_count"}, nothing), errc::missing_key, "rope.dimension_count");
    LARQL_CHECK_ERROR_TEXT(
        problem({}, [](gguf_builder& f) { f.kv("deepseek4.rope.scaling.attn_factor", gguf_builder::f32, le(1.3F)); }),
        errc::not_understood, "attn_factor is stated");
    LARQL_CHECK_ERROR_TEXT(problem({},
                                   [](gguf_builder& f) {
                                       f.floats("blk.0.attn_kv_latent.weight", {40, 24}, std::vector<float>(960));
                                   }),
                           errc::not_understood,
                           "blk.0.attn_kv_latent.weight is another name for blk.0.attn_kv.weight");
}

TEST_CASE("deepseek_v4: FP8 with a scale for each block, under both spellings") {
    // Weights that are codes times scales: 300 columns and 200 rows give grids of more than one block.
    using larql::dtype;
    const std::size_t blocks_of = 128;
    json config = tiny_config(1);
    config.update({{"layer_types", {"compressed_sparse_attention"}},
                   {"hidden_size", 300},
                   {"q_lora_rank", 200},
                   {"quantization_config",
                    {{"quant_method", "fp8"},
                     {"fmt", "e4m3"},
                     {"scale_fmt", "ue8m0"},
                     {"activation_scheme", "dynamic"},
                     {"weight_block_size", {128, 128}}}}});
    const attention_spec spec = larql::parse_model_config(config).blocks[0];
    struct entry {
        std::string name;
        dtype type;
        std::vector<std::uint64_t> shape;
        std::string bytes;
    };
    larql::testing::random_source random(5);
    for (const bool e8m0 : {true, false})
        for (const renames& rules : {renames{}, in_memory}) {
            CAPTURE(e8m0);
            CAPTURE(rules.size());
            std::vector<entry> stored;
            stored_tensors plain;
            const auto add = [&](const std::string& name, std::uint64_t rows, std::uint64_t cols, bool fp8) {
                const bool is_vector = rows == 1;
                stored_tensor t{is_vector ? std::vector{cols} : std::vector{rows, cols}, {}};
                std::string codes, scales;
                const std::uint64_t across = (cols + blocks_of - 1) / blocks_of;
                std::vector<float> grid((rows + blocks_of - 1) / blocks_of * across);
                for (float& s : grid) {
                    const int exponent = static_cast<int>(random.below(4)) - 8;
                    s = e8m0 ? std::ldexp(1.0F, exponent) : 1.3F * std::ldexp(1.0F, exponent);
                    scales += e8m0 ? std::string(1, static_cast<char>(127 + exponent)) : le(s);
                }
                for (std::uint64_t i = 0; i < rows * cols; ++i) {
                    const auto code = static_cast<std::uint8_t>(random.below(256) & 0xbf);  // below 2
                    const float value = larql::f8_e4m3_to_float(code);
                    t.values.push_back(!fp8 ? value
                                            : value * grid[i / cols / blocks_of * across + i % cols / blocks_of]);
                    if (fp8)
                        codes += static_cast<char>(code);
                    else
                        codes += le(value);
                }
                const std::string stored_name = renamed(name, rules);
                stored.push_back({stored_name, fp8 ? dtype::f8_e4m3 : dtype::f32, t.shape, codes});
                if (fp8) {
                    const std::string module = stored_name.substr(0, stored_name.size() - 7);  // without ".weight"
                    stored.push_back({module + (rules.empty() ? ".scale" : ".weight_scale_inv"),
                                      e8m0 ? dtype::f8_e8m0 : dtype::f32,
                                      {(rows + blocks_of - 1) / blocks_of, across},
                                      scales});
                }
                plain[name] = std::move(t);
            };
            const larql::detail::name_matcher names(larql::detail::deepseek_v4_names,
                                                    larql::detail::naming::safetensors);
            for (const larql::detail::role_row& row : larql::detail::attention_roles) {
                if (!row.needed(spec, spec.form)) continue;
                using enum larql::tensor_role;
                const bool fp8 = larql::role_set{q_a, q_b, k, o_a, o_b, indexer_q_b}.contains(row.role);
                add(*names.spell({row.role}, ""), larql::detail::size_of(row.rows, spec),
                    larql::detail::size_of(row.cols, spec), fp8);
            }
            const temporary_folder folder, plain_folder;
            larql::testing::write_file(folder / "config.json", config.dump());
            larql::safetensors_writer writer(folder / "model.safetensors", {.replace = true});
            for (const entry& e : stored) writer.add_tensor(e.name, e.type, e.shape);
            for (const entry& e : stored) writer.write(e.name, std::as_bytes(std::span(e.bytes)));
            writer.commit();
            json plain_config = config;
            plain_config.erase("quantization_config");
            write_model(plain_folder.path(), plain_config, plain);
            const checkpoint model = checkpoint::open(folder.path());
            CHECK(model.weights().at(model.tensor_name(larql::tensor_role::q_b, 0)).scheme() == "fp8-block");
            const auto x = larql::testing::random_matrix(random, 19, 300);
            const auto got = model.attention(0, attention_form::factored).forward(x);
            const auto want = checkpoint::open(plain_folder.path()).attention(0, attention_form::factored).forward(x);
            CHECK(relative_error(got.out, want.out) < 1e-6);
        }
}

TEST_CASE("deepseek_v4: there is nothing to absorb, and asking for another form says so") {
    const checkpoint model = checkpoint::open(folder_of("deepseek_v4_mixed"));
    for (const attention_form form : {attention_form::dense, attention_form::latent}) {
        CHECK_FALSE(model.supports(form));
        LARQL_CHECK_ERROR(model.attention(0, form), errc::unsupported_architecture, "there is nothing to absorb");
    }
    LARQL_CHECK_ERROR(model.factors(0), errc::unsupported_architecture, "there is nothing to absorb");
    CHECK(model.supports(attention_form::factored));
    CHECK(model.dialect().empty());
}

TEST_CASE("deepseek_v41: is recognised and refused, for its reason") {
    const std::string reason = "layers share compressors, entries are chosen in two levels of top-k";
    const std::string problem = problem_of({{"model_type", "deepseek_v41"}, {"hidden_size", 5120}});
    LARQL_CHECK_ERROR_TEXT(problem, errc::unsupported_architecture, "\"deepseek_v41\": " + reason);
    LARQL_CHECK_ERROR_TEXT(problem, errc::unsupported_architecture, "fake quantisation");
    const temporary_folder folder;
    const auto path = larql::testing::write_file(
        folder / "m.gguf", gguf_builder{}.kv_string("general.architecture", "deepseek41").build());
    LARQL_CHECK_ERROR(checkpoint::open(path).config(), errc::unsupported_architecture, reason);
}

TEST_CASE("deepseek_v4: kinds of layers by name, by ratio, or in their usual order") {
    json config = tiny_config();
    CHECK(ratios_of(config) == list{128, 128, 128, 4, 128, 4});
    config["compress_rate_csa"] = 5;
    config["compress_rates"] = {{"compressed_sparse_attention", 6}, {"heavily_compressed_attention", 9}};
    CHECK(ratios_of(config) == list{9, 9, 9, 5, 9, 5});  // what stands beside the object goes before it
    config = tiny_config();
    config["compress_ratios"] = {0, 4, 128, 0, 0, 4, 0};
    CHECK(ratios_of(config) == list{0, 4, 128, 0, 0, 4});
    const model_config model = larql::parse_model_config(config);
    CHECK(model.blocks[1].compression.overlapping);
    CHECK(model.blocks[1].compression.index_top_k == 2);
    CHECK(model.blocks[2].compression.index_heads == 0);
    CHECK_FALSE(model.blocks[2].compression.overlapping);
    config["compress_ratios"] = {0, 4, 128, 0, 0};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "expected at least 6 entries, got 5");
    config["compress_ratios"] = {0, 4, 8, 0, 0, 4};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "compress_ratios: expected 0, 4 or 128");
    // Kinds by name may have ratios of their own; two statements of one thing must agree.
    const char* const heavy = "heavily_compressed_attention";
    config["layer_types"] = {"sliding_attention", "compressed_sparse_attention", heavy,
                             "sliding_attention", "sliding_attention",           "compressed_sparse_attention"};
    CHECK(ratios_of(config) == list{0, 4, 8, 0, 0, 4});
    config["compress_rates"] = {{heavy, 9}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "block 2: expected 9");
    config["compress_rates"] = {{heavy, 8}, {"lightly", 2}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "compress_rates.lightly");
    config["compress_rates"] = {{heavy, 0}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "compress_rates.heavily_compressed_attention");
    config.erase("compress_rates");
    config["layer_types"][0] = "full_attention";
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "layer type \"full_attention\" is unknown");
}

TEST_CASE("deepseek_v4: two rotary embeddings, nested or flat, and scaling of the second alone") {
    json config = tiny_config();
    config["compress_ratios"] = {0, 4, 128, 0, 0, 4};
    const auto check = [&] {
        const model_config model = larql::parse_model_config(config);
        const larql::rope_config &main = model.blocks[0].rope, &compress = model.blocks[1].rope;
        CHECK(main.kind == larql::rope_kind::standard);
        CHECK(main.theta == 500.0);
        CHECK(compress.kind == larql::rope_kind::yarn);
        CHECK(compress.theta == 70.0);
        CHECK(compress.factor == 8.0);
        CHECK(larql::make_rope_table(compress).magnitude == 1.0);
        CHECK(model.blocks[2].rope == compress);
        CHECK(main.rotary_dim == 8);
        CHECK(model.blocks[0].geometry.qk_nope_head_dim == 16);
        CHECK(model.blocks[0].scale == doctest::Approx(1.0 / std::sqrt(24.0)));
    };
    check();
    json yarn = config["rope_scaling"];
    config.erase("rope_scaling");
    yarn["rope_theta"] = 70.0;
    config["rope_parameters"] = {{"main", {{"rope_type", "default"}, {"rope_theta", 500.0}}}, {"compress", yarn}};
    config.erase("compress_rope_theta");
    config.erase("rope_theta");
    check();
    config["rope_parameters"].erase("main");
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "have none for \"main\"");
    config["rope_parameters"]["main"] = {{"rope_type", "default"}};
    config["rope_parameters"]["other"] = {{"rope_type", "default"}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "rope parameters for \"other\" are unknown");
    // Absent: transformers' defaults.
    config = tiny_config();
    for (const char* key : {"rope_scaling", "compress_rope_theta", "rope_theta", "sliding_window", "rms_norm_eps"})
        config.erase(key);
    config["head_dim"] = 32;
    config.erase("qk_rope_head_dim");
    config["compress_ratios"] = {0, 4, 128, 0, 0, 4};
    const model_config model = larql::parse_model_config(config);
    CHECK(model.blocks[0].rope.theta == 10000.0);
    CHECK(model.blocks[1].rope.theta == 160000.0);
    CHECK(model.blocks[1].rope.kind == larql::rope_kind::standard);
    CHECK(model.blocks[1].rope.rotary_dim == 4);  // an eighth of a head
    CHECK(model.blocks[0].sliding_window == 128);
    CHECK(model.blocks[1].compression.norm.eps == 1e-6);
}

TEST_CASE("deepseek_v4: sizes that are absent or contradict each other, and tensors that nothing reads") {
    for (const char* key :
         {"q_lora_rank", "o_groups", "o_lora_rank", "index_n_heads", "index_head_dim", "index_topk"}) {
        CAPTURE(std::string(key));
        json config = tiny_config();
        config.erase(key);
        LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::missing_key, std::string(key) + ": required and absent");
    }
    json config = tiny_config();
    config["num_key_value_heads"] = 2;
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "num_key_value_heads: expected 1, got 2");
    config = tiny_config();
    config["o_groups"] = 5;
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::bad_value, "o_groups: expected a divisor of 144");
    config = tiny_config();
    config["kv_lora_rank"] = 64;
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::not_understood, "kv_lora_rank");
    config = json{{"model_type", "llama"}, {"o_groups", 2}, {"compress_rates", {{"x", 1}}}};
    LARQL_CHECK_ERROR_TEXT(problem_of(config), errc::missing_key, "hidden_size");

    const stored_tensors published = tensors_of("deepseek_v4_mixed");
    const auto problem = [&](auto&& change) {
        const temporary_folder folder;
        stored_tensors tensors = published;
        change(tensors);
        write_model(folder.path(), config_of("deepseek_v4_mixed"), tensors);
        return larql::testing::error_of(
            [&] { return checkpoint::open(folder.path()).attention(0, attention_form::factored); });
    };
    const stored_tensor extra{{3}, {1.0F, 2.0F, 3.0F}};
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) { t["layers.0.attn.wx.weight"] = extra; }), errc::not_understood,
                           "layers.0.attn.wx.weight is unknown");
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) { t["layers.1.attn.compressor.ape"] = extra; }), errc::not_understood,
                           "layers.1.attn.compressor.ape has no use in this block");
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) { t["layers.0.attn.norm.weight"] = extra; }), errc::not_understood,
                           "is another name for");
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) { t.erase("layers.0.attn.attn_sink"); }), errc::missing_tensor,
                           "layers.0.attn.attn_sink");
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) { t.erase("layers.0.attn.compressor.ape"); }), errc::missing_tensor,
                           "layers.0.attn.compressor.ape");
    LARQL_CHECK_ERROR_TEXT(problem([&](auto& t) {
                               t["layers.0.attn.compressor.ape"].shape = {1, 144};
                           }),
                           errc::shape_mismatch, "[3, 48]");
    CHECK(problem([&](auto& t) { t["layers.0.hc_attn_fn"] = extra; }) == "no error");
}
