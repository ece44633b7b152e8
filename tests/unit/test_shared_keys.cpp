// SPDX-License-Identifier: Apache-2.0
//
// Blocks that attend to keys and values of another block: Gemma 3n, and Gemma 4's small models. What they compute is
// held against transformers in test_gqa_families.cpp.
#include <larql/attention_cost.hpp>
#include <larql/attention_plan.hpp>
#include <larql/checkpoint.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>
#include <support/gguf_builder.hpp>
#include <support/reference_case.hpp>
#include <support/tiny_configs.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_spec;
using larql::bf16;
using larql::cached_sequence;
using larql::checkpoint;
using larql::errc;
using larql::kv_cache;
using larql::tensor;
using larql::tensor_role;
using larql::testing::blocks_of;
using larql::testing::problem_of;
using larql::testing::relative_error;
using nlohmann::json;

using layers = std::vector<std::optional<std::size_t>>;
constexpr auto own = std::nullopt;

layers sources(const std::vector<attention_spec>& blocks) {
    layers out;
    for (const attention_spec& spec : blocks) out.push_back(spec.kv_layer);
    return out;
}

json types(const std::string& letters) {
    json out = json::array();
    for (const char letter : letters) out.push_back(letter == 'S' ? "sliding_attention" : "full_attention");
    return out;
}

json sharing(const std::string& letters, std::size_t shared) {
    return {{"num_hidden_layers", letters.size()}, {"layer_types", types(letters)}, {"num_kv_shared_layers", shared}};
}

const std::string folder = std::string(LARQL_TEST_DATA) + "/hf/gemma3n_text";

/// Rows [begin, end) of the input that transformers gave a block of the case.
tensor<float, 2> input(std::size_t block, std::size_t begin = 0, std::size_t end = 41) {
    static const auto reference = larql::safetensors_file::open(folder + "/reference.safetensors");
    const tensor<float, 2> all = reference.read<2>("layer" + std::to_string(block) + ".hidden");
    auto rows = tensor<float, 2>::from_shape({end - begin, all.shape(1)});
    std::copy_n(all.data() + begin * all.shape(1), rows.size(), rows.data());
    return rows;
}

/// The case as a GGUF of llama.cpp's architecture "gemma3n", with the keys that its converter writes.
larql::testing::gguf_builder as_gguf(bool shared_key, bool pattern_of_each = true) {
    using larql::testing::gguf_builder;
    using larql::testing::le;
    gguf_builder file;
    file.kv_string("general.architecture", "gemma3n");
    const auto number = [&](const std::string& key, std::uint32_t value) {
        file.kv("gemma3n." + key, gguf_builder::u32, le(value));
    };
    const auto real = [&](const std::string& key, float value) {
        file.kv("gemma3n." + key, gguf_builder::f32, le(value));
    };
    number("block_count", 7);
    number("context_length", 64);
    number("embedding_length", 16);
    number("attention.head_count", 4);
    number("attention.head_count_kv", 2);
    number("attention.key_length", 4);
    number("attention.value_length", 4);
    number("attention.sliding_window", 7);
    if (shared_key) number("attention.shared_kv_layers", 3);
    real("attention.layer_norm_rms_epsilon", 1e-2F);
    real("rope.freq_base", 500.0F);
    real("rope.freq_base_swa", 20.0F);
    file.kv_array("gemma3n.activation_sparsity_scale", gguf_builder::f32, 1, le(0.5F));
    if (pattern_of_each)
        file.kv_array("gemma3n.attention.sliding_window_pattern", gguf_builder::boolean, 7,
                      std::string("\1\0\1\0\1\1\0", 7));
    else
        number("attention.sliding_window_pattern", 2);
    const auto stored = larql::safetensors_file::open(folder + "/model.safetensors");
    const std::pair<const char*, const char*> names[] = {{"q_proj", "attn_q"},      {"k_proj", "attn_k"},
                                                         {"v_proj", "attn_v"},      {"o_proj", "attn_output"},
                                                         {"q_norm", "attn_q_norm"}, {"k_norm", "attn_k_norm"}};
    for (std::size_t block = 0; block < 7; ++block)
        for (const auto& [hf, gguf] : names) {
            const std::string name = "model.layers." + std::to_string(block) + ".self_attn." + hf + ".weight";
            const std::string other = "blk." + std::to_string(block) + "." + gguf + ".weight";
            if (std::string(hf).ends_with("norm")) {
                const tensor<float, 1> x = stored.read<1>(name);
                file.floats(other, {x.size()}, {x.begin(), x.end()});
            } else {
                const tensor<float, 2> x = stored.read<2>(name);
                file.floats(other, {x.shape(1), x.shape(0)}, {x.begin(), x.end()});
            }
        }
    return file;
}

}  // namespace

TEST_CASE("shared keys: the last layers take those of the last layer of their type that has its own") {
    CHECK(sources(blocks_of("gemma3n_text", sharing("SFSFSSF", 3))) == layers{own, own, own, own, 2, 2, 3});
    CHECK(sources(blocks_of("gemma3n_text", sharing("FSSFSFS", 4))) == layers{own, own, own, 0, 2, 0, 2});
    CHECK(sources(blocks_of("gemma3n_text", sharing("SFSF", 0))) == layers{own, own, own, own});
    // Without types every fifth layer is full, and fifteen layers share.
    const auto published = blocks_of("gemma3n_text", {{"num_hidden_layers", 35}});
    CHECK(published[19].kv_layer == own);
    CHECK(published[20].kv_layer == 18);
    CHECK(published[24].kv_layer == 19);
    CHECK(published[34].kv_layer == 19);
    const json ropes{{"rope_parameters",
                      {{"full_attention", {{"rope_type", "proportional"}, {"rope_theta", 1e4}}},
                       {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}}}};
    for (const char* type : {"gemma4_text", "gemma4_unified_text"}) {
        json more = sharing("SFSFSF", 2);
        more.update(ropes);
        CHECK(sources(blocks_of(type, more)) == layers{own, own, own, own, 2, 3});
        more["layer_types"] = types("SFSFSS");  // the last one is full whatever is stated
        CHECK(sources(blocks_of(type, more)) == layers{own, own, own, own, 2, 3});
        more.erase("num_kv_shared_layers");
        CHECK(sources(blocks_of(type, more)) == layers(6));
        more["num_kv_shared_layers"] = 2;
        more["per_layer_config"] = {{"5", {{"head_dim", 16}}}};
        LARQL_CHECK_ERROR_TEXT(problem_of(type, more), errc::bad_value, "layer 5 has 2 key/value heads of 16");
    }
}

TEST_CASE("shared keys: such a block has queries alone") {
    json more = sharing("SFSFSSF", 3);
    more["attention_bias"] = true;
    const attention_spec spec = blocks_of("gemma3n_text", more)[6];
    const auto needed = [&](tensor_role role) {
        return larql::detail::needs_role(*larql::detail::find_role(role), spec);
    };
    for (const tensor_role role : {tensor_role::k, tensor_role::v, tensor_role::k_norm}) {
        CHECK_FALSE(needed(role));
        CHECK_FALSE(spec.biases.contains(role));
    }
    for (const tensor_role role : {tensor_role::q, tensor_role::o, tensor_role::q_norm}) CHECK(needed(role));
    CHECK(spec.biases.contains(tensor_role::q));
    CHECK(spec.v_norm.kind == larql::norm_kind::none);
    attention_spec bad = spec;
    bad.kv_layer = 6;
    LARQL_CHECK_ERROR(larql::detail::require_valid(bad), errc::bad_value, "a layer before 6, got layer 6");
    bad.kv_layer = 3;
    bad.k_norm = bad.q_norm;
    LARQL_CHECK_ERROR(larql::detail::require_valid(bad), errc::bad_value, "without norms of keys");
}

TEST_CASE("shared keys: a number of layers that cannot be is refused by name") {
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma3n_text", sharing("SFSF", 4)), errc::bad_value,
                           "num_kv_shared_layers: expected less than the 4 layers");
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma3n_text", json::object()), errc::bad_value, "got 15");
    LARQL_CHECK_ERROR_TEXT(problem_of("gemma3n_text", sharing("SSSF", 1)), errc::bad_value,
                           "none of the 3 layers that have their own is \"full_attention\"");
    LARQL_CHECK_ERROR_TEXT(problem_of("llama", {{"num_kv_shared_layers", 2}}), errc::not_understood,
                           "num_kv_shared_layers is 2");
}

TEST_CASE("shared keys: costs are those of queries and the output, and of no cache") {
    attention_spec spec{
        .kind = larql::attention_kind::gqa,
        .layer = 3,
        .geometry = {.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .qk_rope_head_dim = 32, .v_head_dim = 32}};
    const auto plan = [&] {
        const larql::planned_block block{&spec, 0};
        return larql::plan_form(std::span(&block, 1), attention_form::factored, 100);
    };
    spec.sliding_window = 7;
    const larql::attention_cost alone = larql::cost_of(spec, attention_form::factored);
    const larql::form_plan before = plan();
    spec.kv_layer = 1;
    const larql::attention_cost cost = larql::cost_of(spec, attention_form::factored);
    CHECK(alone.weights - cost.weights == 2 * 64 * 64);  // k and v
    CHECK(cost.weights == 2 * 128 * 64);
    CHECK(cost.flops_per_token == 2 * cost.weights);
    CHECK(cost.cached_per_token == 0);
    CHECK(cost.flops_per_cached_token == alone.flops_per_cached_token);
    const larql::form_plan made = plan();
    CHECK(made.cache_f16_bytes == 0);
    CHECK(made.cache_seen_bytes == 0);
    CHECK(made.decode_bytes == before.decode_bytes);  // it reads as many keys, of the other cache,
    CHECK(made.prefill_bytes_per_token == before.prefill_bytes_per_token / 2);  // and writes none
    CHECK(larql::cache_bytes(spec, attention_form::factored, 100, 2) == 0);
    // With an input wider than the model, too (EAGLE-3).
    spec.input_size = 128;
    CHECK(larql::cost_of(spec, attention_form::factored).weights == 128 * 128 + 128 * 64);
}

TEST_CASE("shared keys: the other block's cache is read, and nothing is changed in it") {
    const checkpoint model = checkpoint::open(folder);
    CHECK(model.config().kv_block(4) == 2);
    CHECK(model.config().kv_block(6) == 3);
    CHECK(model.config().kv_block(1) == 1);
    const auto source = model.attention(2, attention_form::factored),
               other = model.attention(3, attention_form::factored);
    const auto block = model.attention(4, attention_form::factored);
    LARQL_CHECK_ERROR(block.make_cache(8), errc::bad_value,
                      "make_cache: the block attends to keys and values of layer 2");
    LARQL_CHECK_ERROR(block.forward(input(4)), errc::bad_value, "forward takes the cache of that layer's block");

    auto cache = source.make_cache<bf16>(64);
    LARQL_CHECK_ERROR(block.forward(input(4), cache), errc::bad_value,
                      "given 41 tokens, and the cache of layer 2 holds 0");
    (void)source.forward(input(2), cache);
    const auto whole = block.forward(input(4), cache);
    CHECK(cache.size() == 41);
    CHECK(cache.next_position() == 41);
    CHECK(whole.k.shape(0) == 0);
    CHECK(whole.v.shape(0) == 0);
    auto wrong = other.make_cache<bf16>(64);
    (void)other.forward(input(3), wrong);
    LARQL_CHECK_ERROR(block.forward(input(4), wrong), errc::bad_value, "layer 2, and this is the cache of layer 3");
    // A cache that says no layer is the caller's to know; one of other sizes never fits.
    kv_cache<bf16> unsaid({.capacity = 64, .kv_heads = 2, .key_size = 4, .value_size = 4});
    unsaid.append(cache.keys(), cache.values());
    CHECK(relative_error(block.forward(input(4), unsaid).out, whole.out) == 0.0);
    kv_cache<bf16> odd({.capacity = 64, .kv_heads = 1, .key_size = 4, .value_size = 4});
    LARQL_CHECK_ERROR(block.forward(input(4), odd), errc::shape_mismatch, "the layer caches 2 heads of 4/4");

    // In pieces, with the window's past dropped behind both blocks, and never before.
    auto piecewise = source.make_cache<bf16>(64);
    for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 20}, {20, 33}, {33, 41}}) {
        (void)source.forward(input(2, begin, end), piecewise);
        const auto part = block.forward(input(4, begin, end), piecewise);
        auto expected = tensor<float, 2>::from_shape({end - begin, 16});
        std::copy_n(whole.out.data() + begin * 16, expected.size(), expected.data());
        CHECK(relative_error(part.out, expected) <= 1e-5);
        CHECK(block.unneeded(piecewise) == source.unneeded(piecewise));
        piecewise.drop_front(source.unneeded(piecewise));
    }
    CHECK(piecewise.first_position() == 35);
    LARQL_CHECK_ERROR(block.forward(input(4, 39, 41), piecewise), errc::bad_value, "sees those from 33 on");
}

TEST_CASE("shared keys: batches and halves of a block") {
    const checkpoint model = checkpoint::open(folder);
    const auto source = model.attention(3, attention_form::factored),
               block = model.attention(6, attention_form::factored);
    auto a = source.make_cache(64), b = source.make_cache(64);
    (void)source.forward(input(3), a);
    (void)source.forward(input(3, 0, 12), b);
    const auto alone_a = block.forward(input(6, 30, 41), a), alone_b = block.forward(input(6, 0, 12), b);
    auto x = tensor<float, 2>::from_shape({23, 16});
    const tensor<float, 2> first = input(6, 30, 41), second = input(6, 0, 12);
    std::copy_n(first.data(), first.size(), x.data());
    std::copy_n(second.data(), second.size(), x.data() + first.size());
    const std::vector<cached_sequence<float>> sequences{{&a, 11}, {&b, 12}};
    const auto both = block.forward_batch(x, sequences);
    auto expected = tensor<float, 2>::from_shape({23, 16});
    std::copy_n(alone_a.out.data(), alone_a.out.size(), expected.data());
    std::copy_n(alone_b.out.data(), alone_b.out.size(), expected.data() + alone_a.out.size());
    CHECK(relative_error(both.out, expected) <= 1e-5);
    CHECK(a.size() == 41);
    CHECK(b.size() == 12);
    const std::vector<cached_sequence<float>> many{{&a, 42}, {&b, 12}};
    LARQL_CHECK_ERROR(block.forward_batch(input(6, 0, 41), many), errc::bad_value, "given 42 tokens");

    const std::vector<std::size_t> positions{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const auto parts = block.project(second, positions);
    CHECK(parts.k.shape(0) == 0);
    CHECK(relative_error(parts.q, alone_b.q) <= 1e-6);
    auto attended = tensor<float, 3>::from_shape({12, 4, 4});
    auto options = block.options();
    options.first_position = 0;
    larql::gqa_attention_into(parts.q, b.keys(), b.values(), attended, options);
    CHECK(relative_error(block.finish(attended, second), alone_b.out) <= 1e-5);
}

TEST_CASE("shared keys: a GGUF of gemma3n gives what transformers computed") {
    const larql::testing::temporary_folder place;
    int files = 0;
    const auto open = [&](const larql::testing::gguf_builder& file) {
        const std::string name = std::to_string(files++) + ".gguf";
        return checkpoint::open(larql::testing::write_file(place / name, file.build()));
    };
    const checkpoint model = open(as_gguf(true));
    CHECK(larql::testing::worst_error(model, "gemma3n_text") <= 1e-5);
    LARQL_CHECK_ERROR(open(as_gguf(false)).config(), errc::missing_key, "gemma3n.attention.shared_kv_layers: required");
    const auto windows = [](const checkpoint& opened) {
        std::vector<std::size_t> all;
        for (const attention_spec& spec : opened.config().blocks) all.push_back(spec.sliding_window);
        return all;
    };
    CHECK(windows(model) == std::vector<std::size_t>{7, 0, 7, 0, 7, 7, 0});
    CHECK(windows(open(as_gguf(true, false))) == std::vector<std::size_t>{7, 0, 7, 0, 7, 0, 7});
    // The two containers hold the same: every block is computed on both sides.
    const auto report = larql::verify(checkpoint::open(folder), model);
    CHECK(report.attention.size() == 7);
    for (const auto& check : report.attention) CHECK_MESSAGE(check.problem.empty(), check.problem);
}
