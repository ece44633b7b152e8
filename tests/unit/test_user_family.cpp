// SPDX-License-Identifier: Apache-2.0
//
// A family that exists nowhere, added by a user: rows alone, without a change in larql.
#include <larql/checkpoint.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <string>

namespace {

using larql::attention_form;
using larql::checkpoint;
using larql::tensor_role;
using larql::testing::gqa_rules;
using larql::testing::gqa_tensors;
using larql::testing::matrix;
using larql::testing::relative_error;
using larql::testing::tiny_model;
using nlohmann::json;

// What a user writes: names, aliases and one row.
constexpr larql::name_row triad_names[] = {
    {tensor_role::qkv, "layers.{}.mixer.in_proj.weight"},
    {tensor_role::q_norm, "layers.{}.mixer.query_norm.weight"},
    {tensor_role::k_norm, "layers.{}.mixer.key_norm.weight"},
    {tensor_role::gate, "layers.{}.mixer.gate.weight"},
    {tensor_role::sinks, "layers.{}.mixer.sink_logits"},
    {tensor_role::o, "layers.{}.mixer.out_proj.weight"},
};
constexpr larql::key_alias triad_aliases[] = {{larql::model_key::sliding_window, "local_span"}};
constexpr std::string_view triad_inert[] = {"gate_init_std"};
constexpr larql::model_family triad[] = {
    {.name = "triad",
     .model_types = {"triad"},
     .classes = {"TriadForCausalLM"},
     .names = triad_names,
     .q_norm = {.kind = larql::norm_kind::rms},
     .k_norm = {.kind = larql::norm_kind::rms},
     .windows = larql::window_rule::period,
     .window_period = 3,
     .window_offset = 2,
     .gate = larql::output_gate::per_head,
     .sinks = true,
     .biases = {tensor_role::q, tensor_role::k, tensor_role::v},
     .default_rope_theta = 500.0,
     .aliases = triad_aliases,
     .inert_keys = triad_inert},
};

constexpr std::size_t layers = 4, width = 20, heads = 6, groups = 2, dim = 8;

json config() {
    return {{"model_type", "triad"},
            {"architectures", {"TriadForCausalLM"}},
            {"hidden_size", width},
            {"num_hidden_layers", layers},
            {"num_attention_heads", heads},
            {"num_key_value_heads", groups},
            {"head_dim", dim},
            {"rms_norm_eps", 1e-2},
            {"local_span", 3},
            {"gate_init_std", 0.02}};
}

/// Rows [begin, end) of the fused projection.
matrix rows_of(const matrix& fused, std::size_t begin, std::size_t end) {
    matrix part = matrix::from_shape({end - begin, fused.shape(1)});
    std::copy_n(fused.data() + begin * fused.shape(1), part.size(), part.data());
    return part;
}
larql::testing::vector part_of(const larql::testing::vector& fused, std::size_t begin, std::size_t end) {
    auto part = larql::testing::vector::from_shape({end - begin});
    std::copy_n(fused.data() + begin, part.size(), part.data());
    return part;
}

gqa_tensors add_layer(tiny_model& model, std::size_t layer) {
    const std::string at = "net.layers." + std::to_string(layer) + ".mixer.";
    const std::size_t q_rows = heads * dim, kv_rows = groups * dim;
    const matrix fused = model.add(at + "in_proj.weight", q_rows + 2 * kv_rows, width);
    const auto bias = model.add_vector(at + "in_proj.bias", q_rows + 2 * kv_rows);
    gqa_tensors w;
    w.q = rows_of(fused, 0, q_rows);
    w.k = rows_of(fused, q_rows, q_rows + kv_rows);
    w.v = rows_of(fused, q_rows + kv_rows, q_rows + 2 * kv_rows);
    w.q_bias = part_of(bias, 0, q_rows);
    w.k_bias = part_of(bias, q_rows, q_rows + kv_rows);
    w.v_bias = part_of(bias, q_rows + kv_rows, q_rows + 2 * kv_rows);
    w.q_norm = model.add_vector(at + "query_norm.weight", dim, 1.0);
    w.k_norm = model.add_vector(at + "key_norm.weight", dim, 1.0);
    w.gate = model.add(at + "gate.weight", heads, width);
    const auto sinks = model.add_vector(at + "sink_logits", heads);
    w.sinks.assign(sinks.begin(), sinks.end());
    w.o = model.add(at + "out_proj.weight", width, heads * dim);
    return w;
}

}  // namespace

TEST_CASE("families: a user's family with fused qkv, norms, windows, sinks and a gate computes its formula") {
    const larql::testing::temporary_folder folder;
    tiny_model source(3);
    source.config = config();
    std::vector<gqa_tensors> weights;
    for (std::size_t layer = 0; layer < layers; ++layer) weights.push_back(add_layer(source, layer));
    source.write(folder.path());

    LARQL_CHECK_ERROR(checkpoint::open(folder.path()).config(), larql::errc::unsupported_architecture,
                      "larql does not implement \"triad\"");
    const checkpoint model = checkpoint::open(folder.path(), {.families = triad});
    CHECK(model.config().family == "triad");
    CHECK(model.config().warnings.empty());
    const matrix x = larql::testing::random_matrix(source.random(), 9, width);
    for (std::size_t layer = 0; layer < layers; ++layer) {
        CAPTURE(layer);
        gqa_rules rules{.heads = heads, .groups = groups, .dim = dim, .scale = 1.0 / std::sqrt(8.0), .eps = 1e-2};
        for (std::size_t j = 0; j < dim / 2; ++j)
            rules.frequencies.push_back(std::pow(500.0, -2.0 * static_cast<double>(j) / static_cast<double>(dim)));
        rules.window = layer == 2 ? 3 : 0;
        CHECK(model.spec(layer).sliding_window == rules.window);
        const auto [context, out] = larql::testing::reference_gqa(x, weights[layer], rules);
        const auto got = model.attention(layer, attention_form::factored).forward(x);
        CHECK(relative_error(got.context, context) < 1e-5);  // float against double
        CHECK(relative_error(got.out, out) < 1e-5);
    }
}

TEST_CASE("families: the closed world holds for a user's family, too") {
    const larql::testing::temporary_folder folder;
    tiny_model source(4);
    source.config = config();
    for (std::size_t layer = 0; layer < layers; ++layer) add_layer(source, layer);
    source.add_vector("net.layers.1.mixer.value_norm.weight", dim, 1.0);
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path(), {.families = triad}).config(), larql::errc::not_understood,
                      "net.layers.1.mixer.value_norm.weight is unknown");
    source.remove("net.layers.1.mixer.value_norm.weight");
    source.config["value_norm_eps"] = 1e-3;
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path(), {.families = triad}).config(), larql::errc::not_understood,
                      "value_norm_eps (0.001) is unknown");
    source.config.erase("value_norm_eps");
    source.config.erase("local_span");
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path(), {.families = triad}).config(), larql::errc::missing_key,
                      "sliding_window: required and absent; null means none");
}

TEST_CASE("families: a caller's row goes before larql's own") {
    constexpr larql::model_family own[] = {{.name = "my_llama", .model_types = {"llama"}, .classes = {"MyLlama"}}};
    json llama = larql::testing::tiny_llama_config();
    llama["architectures"] = {"MyLlama"};
    CHECK(larql::parse_model_config(llama, {}, {.families = own}).family == "my_llama");
    CHECK(larql::parse_model_config(larql::testing::tiny_llama_config()).family == "llama");
}

TEST_CASE("families: a row can say that its models are refused, and why") {
    static constexpr larql::model_family rows[] = {
        {.name = "tetrad",
         .model_types = {"tetrad"},
         .gguf_architecture = "tetrad",
         .refused = "its scores are divided by a learned temperature"},
    };
    const larql::testing::temporary_folder folder;
    tiny_model source(5);
    source.config = config();
    source.config["model_type"] = "tetrad";
    add_layer(source, 0);
    source.write(folder.path());
    LARQL_CHECK_ERROR(checkpoint::open(folder.path(), {.families = rows}).config(),
                      larql::errc::unsupported_architecture,
                      "larql does not implement \"tetrad\": its scores are divided by a learned temperature");
    const auto file = larql::testing::write_file(
        folder / "m.gguf", larql::testing::gguf_builder{}.kv_string("general.architecture", "tetrad").build());
    LARQL_CHECK_ERROR(checkpoint::open(file, {.families = rows}).config(), larql::errc::unsupported_architecture,
                      "larql does not implement \"tetrad\": its scores are divided by a learned temperature");
}
