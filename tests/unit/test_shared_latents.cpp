// SPDX-License-Identifier: Apache-2.0
//
// Blocks that attend to latents of another block, with or without an indexer of their own (Mistral-Large-4), against
// what transformers computed; and what else that family alone has: learned frequencies, factors of each head's queries,
// an indexer whose queries are made from the input.
#include <larql/attention_cost.hpp>
#include <larql/attention_plan.hpp>
#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/convert.hpp>
#include <larql/detail/model/families.hpp>
#include <larql/executor.hpp>
#include <larql/kv_cache.hpp>
#include <larql/verify.hpp>

#include <nlohmann/json.hpp>
#include <support/failing_executor.hpp>
#include <support/files.hpp>
#include <support/random.hpp>
#include <support/tiny_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using larql::attention_form;
using larql::attention_layer;
using larql::attention_result;
using larql::attention_spec;
using larql::checkpoint;
using larql::errc;
using larql::key_selection;
using larql::kv_cache;
using larql::parse_model_config;
using larql::tensor;
using larql::testing::failing_executor;
using larql::testing::relative_error;
using nlohmann::json;

constexpr double infinite = std::numeric_limits<double>::infinity();
const std::string shared = "mistral_large4", unstated = "mistral_large4__unstated";

std::string folder_of(const std::string& name) { return std::string(LARQL_TEST_DATA) + "/hf/" + name; }
larql::safetensors_file reference_of(const std::string& name) {
    return larql::safetensors_file::open(folder_of(name) + "/reference.safetensors");
}

tensor<float, 2> rows(const tensor<float, 2>& x, std::size_t begin, std::size_t end) {
    auto part = tensor<float, 2>::from_shape({end - begin, x.shape(1)});
    std::copy_n(x.data() + begin * x.shape(1), part.size(), part.data());
    return part;
}

/// Calls of a block on what transformers fed it, `step` tokens at a time, the other block's keys made before.
class block_calls {
public:
    block_calls(const checkpoint& model, const larql::safetensors_file& reference, std::size_t block,
                attention_form form)
        : m_layer(model.attention(block, form)),
          m_source(model.attention(model.config().kv_block(block), form)),
          m_hidden(reference.read<2>("layer" + std::to_string(block) + ".hidden")),
          m_source_hidden(reference.read<2>("layer" + std::to_string(model.config().kv_block(block)) + ".hidden")),
          m_cache(m_source.make_cache(m_hidden.shape(0))),
          m_index(shares() && m_layer.spec().indexer.own() ? m_layer.make_cache(m_hidden.shape(0))
                                                           : kv_cache<float>(larql::kv_cache_shape{})) {}

    [[nodiscard]] const attention_spec& spec() const { return m_layer.spec(); }

    /// @param given  what the last block before that selects chose for these tokens
    attention_result<float> next(std::size_t begin, std::size_t end, const key_selection& given) {
        const larql::forward_options options{.selection = spec().indexer.shared ? &given : nullptr};
        const tensor<float, 2> x = rows(m_hidden, begin, end);
        if (!shares()) return m_layer.forward(x, m_cache, options);
        key_selection any;  // what the source's tokens see does not change its keys
        for (auto t = static_cast<std::uint32_t>(begin); t < end; ++t) any.append({&t, 1});
        (void)m_source.forward(rows(m_source_hidden, begin, end), m_cache,
                               {.selection = m_source.spec().indexer.shared ? &any : nullptr});
        if (!spec().indexer.own()) return m_layer.forward(x, m_cache, options);
        return m_layer.forward(x, m_cache, m_index, options);
    }

private:
    [[nodiscard]] bool shares() const { return m_layer.spec().kv_layer.has_value(); }

    attention_layer<float> m_layer, m_source;
    tensor<float, 2> m_hidden, m_source_hidden;
    kv_cache<float> m_cache, m_index;
};

/// Whether a selection is the reference's rows, which are filled up with -1.
bool selects(const key_selection& got, const tensor<std::int32_t, 2>& want, std::size_t begin) {
    for (std::size_t t = 0; t < got.tokens(); ++t) {
        std::vector<std::uint32_t> list;
        for (std::size_t i = 0; i < want.shape(1) && want(begin + t, i) >= 0; ++i)
            list.push_back(static_cast<std::uint32_t>(want(begin + t, i)));
        if (!std::ranges::equal(got.of(t), list)) return false;
    }
    return true;
}

/// The worst error of one pass of a model's blocks, or of their calls on so many tokens at a time. Blocks without the
/// form are passed over; those before them choose keys all the same.
double worst_error(const checkpoint& model, const std::string& name, attention_form form, std::size_t step) {
    const auto reference = reference_of(name);
    double worst = 0.0;
    const auto note = [&](double error) { worst = error <= worst ? worst : error; };
    const std::size_t tokens = reference.read<2>("layer0.hidden").shape(0);
    std::vector<key_selection> last((tokens + step - 1) / step);
    for (std::size_t block = 0; block < model.attention_blocks(); ++block) {
        const bool has_form = larql::why_not(model.spec(block), form).empty();
        block_calls calls(model, reference, block, has_form ? form : model.spec(block).form);
        const std::string layer = "layer" + std::to_string(block) + ".";
        const auto want = reference.read_integers<std::int32_t, 2>(layer + "selection");
        const tensor<float, 2> out = reference.read<2>(layer + "out"), context = reference.read<2>(layer + "context");
        for (std::size_t t = 0; t < tokens; t += step) {
            const std::size_t end = std::min(t + step, tokens);
            const auto got = calls.next(t, end, last[t / step]);
            note(relative_error(got.out, rows(out, t, end)));
            note(relative_error(got.context, rows(context, t, end)));
            if (!selects(got.selection, want, t)) note(infinite);
            if (got.selection.empty() && calls.spec().indexer.selects(end)) note(infinite);
            if (calls.spec().indexer.own()) last[t / step] = got.selection;
        }
    }
    return worst;
}

}  // namespace

TEST_CASE("shared latents: what transformers computed, in every form, at once and through caches") {
    for (const std::string& name : {shared, unstated})
        for (const attention_form form : {attention_form::factored, attention_form::latent, attention_form::dense})
            for (const std::size_t step : {43U, 1U, 5U}) {
                CAPTURE(name);
                CAPTURE(larql::to_string(form));
                CAPTURE(step);
                CHECK(worst_error(checkpoint::open(folder_of(name)), name, form, step) <= 1e-5);
            }
}

TEST_CASE("shared latents: conversions keep them, and say why there is no dense one") {
    for (const std::string& name : {shared, unstated})
        for (const attention_form form : {attention_form::factored, attention_form::latent}) {
            CAPTURE(name);
            CAPTURE(larql::to_string(form));
            const larql::testing::temporary_folder folder;
            const checkpoint published = checkpoint::open(folder_of(name));
            larql::convert_to_safetensors(published, folder / "out", {.form = form, .type = larql::dtype::f32});
            const checkpoint made = checkpoint::open(folder / "out");
            CHECK(worst_error(made, name, form, 43) <= 1e-5);
            CHECK(worst_error(made, name, form, 1) <= 1e-5);
            const auto report = larql::verify(published, made);
            CHECK(report.attention.size() == published.attention_blocks());
            for (const auto& check : report.attention) CHECK_MESSAGE(check.problem.empty(), check.problem);
        }
    const larql::testing::temporary_folder folder;
    LARQL_CHECK_ERROR(larql::convert_to_safetensors(checkpoint::open(folder_of(shared)), folder / "dense",
                                                    {.form = attention_form::dense}),
                      errc::unsupported_architecture,
                      "\"mistral_large4\" has blocks that attend to the latents of others, which the dense form");
    larql::convert_to_safetensors(checkpoint::open(folder_of(unstated)), folder / "dense",
                                  {.form = attention_form::dense, .type = larql::dtype::f32});
    CHECK(worst_error(checkpoint::open(folder / "dense"), unstated, attention_form::dense, 43) <= 1e-5);
    LARQL_CHECK_ERROR(larql::conversion(checkpoint::open(folder_of(shared)), folder / "x.gguf",
                                        {.form = attention_form::factored, .to = larql::container::gguf})
                          .rows(),
                      errc::unsupported_architecture, "llama.cpp has no architecture for it");
}

TEST_CASE("shared latents: which layers share, and lists that cannot be") {
    const json published = larql::read_config_json(folder_of(shared) + "/config.json");
    const auto with = [&](const char* key, const json& value) {
        json config = published;
        config[key] = value;
        return config;
    };
    const larql::model_config model = parse_model_config(published);
    using layers = std::vector<std::optional<std::size_t>>;
    layers sources;
    std::vector<bool> shares, own_indexer;
    for (const attention_spec& spec : model.blocks) {
        sources.push_back(spec.kv_layer);
        shares.push_back(spec.shares_latents);
        own_indexer.push_back(spec.indexer.own());
        CHECK(spec.temperature.per_head);
        CHECK(spec.latent_norm.eps == 1e-3);
        CHECK(spec.geometry.qk_head_dim() == 14);
    }
    constexpr std::nullopt_t own = std::nullopt;
    CHECK(sources == layers{own, own, 0, 1, 0, own, 5, own, own});
    CHECK(shares == std::vector<bool>{true, true, true, true, true, true, true, false, false});
    CHECK(own_indexer == std::vector<bool>{true, true, false, true, true, false, false, true, true});
    CHECK(model.kv_block(4) == 0);
    CHECK(model.blocks[1].geometry.qk_nope_head_dim == 14);
    CHECK(model.blocks[1].rope.rotary_dim == 0);
    CHECK(model.blocks[0].indexer.q_norm.eps == 1e-6);
    CHECK(model.blocks[0].indexer.k_norm.eps == 1e-6);

    const auto list = [&](const std::vector<int>& layers_of) { return with("kv_source_layers", layers_of); };
    LARQL_CHECK_ERROR(parse_model_config(list({0, 1, 0})), errc::bad_value, "kv_source_layers: expected 9 entries");
    for (const auto& bad : {std::vector<int>{0, 1, 3, 1, 0, 5, 5, 7, 8}, {0, 1, 0, 1, 2, 5, 5, 7, 8}})
        LARQL_CHECK_ERROR(parse_model_config(list(bad)), errc::bad_value, "an earlier layer that has its own");
    // transformers hands on the last shared latents of its kind, whatever the list says.
    LARQL_CHECK_ERROR(parse_model_config(list({0, 1, 0, 1, 0, 5, 0, 7, 5})), errc::bad_value,
                      "layer 6 is to take the latents of layer 0, which is not the last before it");
    LARQL_CHECK_ERROR(parse_model_config(list({0, 1, 1, 1, 4, 5, 6, 7, 8})), errc::bad_value,
                      "transformers would take those of none");
    LARQL_CHECK_ERROR(parse_model_config(with("indexer_types", json(std::vector<std::string>(9, "shared")))),
                      errc::bad_value, "no block before it has an indexer");
    json biased = with("attention_bias", true);
    const larql::model_config with_biases = parse_model_config(biased);
    CHECK(with_biases.blocks[0].biases.contains(larql::tensor_role::kv_a));
    CHECK_FALSE(with_biases.blocks[2].biases.contains(larql::tensor_role::kv_a));
    CHECK(with_biases.blocks[2].biases.contains(larql::tensor_role::o));
    // No other family has such a list.
    json other = larql::read_config_json(folder_of("glm_moe_dsa") + "/config.json");
    other["kv_source_layers"] = {0, 0, 2, 3};
    LARQL_CHECK_ERROR(parse_model_config(other), errc::not_understood, "kv_source_layers");
}

TEST_CASE("learned frequencies: the class's scaling where none is stated, times the exponentials of a tensor") {
    json config = larql::read_config_json(folder_of(unstated) + "/config.json");
    json& text = config["text_config"];
    const auto rope_of = [&] { return parse_model_config(config).blocks.at(0).rope; };
    const larql::rope_config made = rope_of();
    CHECK(made.kind == larql::rope_kind::yarn);
    CHECK(made.theta == 10000.0);
    CHECK(made.factor == 2048.0);
    CHECK(made.original_max_position == 512.0);
    CHECK(larql::make_rope_table(made).magnitude == 1.0);
    CHECK(made.learned);
    CHECK(made.multipliers.empty());
    CHECK_FALSE(parse_model_config(config).blocks.at(3).rope.learned);  // it does not rotate
    text["rope_theta"] = 50.0;                                          // the dictionary that the class makes has one
    CHECK(rope_of().theta == 10000.0);
    text["rope_parameters"] = nullptr;
    CHECK(rope_of().kind == larql::rope_kind::yarn);
    text["rope_parameters"] = json::object();  // a dictionary that says nothing
    CHECK(rope_of().kind == larql::rope_kind::standard);
    CHECK(rope_of().theta == 50.0);

    const checkpoint model = checkpoint::open(folder_of(unstated));
    const auto alpha = model.safetensors()->read<1>("model.language_model.rotary_emb.alpha");
    const auto table = larql::make_rope_table(model.spec(0).rope), bare = larql::make_rope_table(made);
    for (std::size_t j = 0; j < 4; ++j)
        CHECK(table.frequencies[j] == doctest::Approx(bare.frequencies[j] * std::exp(double{alpha(j)})));
    // Without the tensor there is no layer, from files or from a caller's own spec.
    attention_spec spec = model.spec(0);
    spec.rope.multipliers.clear();
    LARQL_CHECK_ERROR(larql::detail::require_valid(spec), errc::bad_value,
                      "rope.multipliers: expected what multiplies");
    spec.rope.multipliers = {1.0, 2.0};
    LARQL_CHECK_ERROR(larql::make_rope_table(spec.rope), errc::shape_mismatch, "rope.multipliers");
    const larql::testing::temporary_folder folder;
    std::filesystem::copy(folder_of(shared), folder / "without");
    std::string bytes = larql::testing::read_file(folder / "without" / "model.safetensors");
    bytes.replace(bytes.find("lerope.alpha"), 12, "lerope.alphi");
    larql::testing::write_file(folder / "without" / "model.safetensors", bytes);
    LARQL_CHECK_ERROR(checkpoint::open(folder / "without").config(), errc::missing_tensor,
                      "rotary_emb.alpha: required and absent");
}

TEST_CASE("shared latents: a block with an indexer of its own has a cache of that alone") {
    const checkpoint model = checkpoint::open(folder_of(shared));
    const auto reference = reference_of(shared);
    const auto hidden = [&](std::size_t layer, std::size_t end) {
        return rows(reference.read<2>("layer" + std::to_string(layer) + ".hidden"), 0, end);
    };
    for (const attention_form form : {attention_form::factored, attention_form::latent}) {
        const auto source = model.attention(0, form), block = model.attention(4, form),
                   plain = model.attention(2, form);
        auto cache = source.make_cache(43), index = block.make_cache(43);
        CHECK(cache.is_latent());
        CHECK(cache.shape().key_size == 24);
        CHECK(index.bytes_per_token() == 12 * sizeof(float));
        LARQL_CHECK_ERROR(plain.make_cache(43), errc::bad_value, "make_cache: the block attends to");
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9)), errc::bad_value, "forward takes the cache");
        (void)source.forward(hidden(0, 9), cache);
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9), cache), errc::bad_value, "index: required and not given");
        LARQL_CHECK_ERROR(plain.forward(hidden(2, 9), cache, index), errc::bad_value, "index: is given");
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9), cache, cache), errc::shape_mismatch, "keys of an indexer alone");
        LARQL_CHECK_ERROR(block.forward(hidden(4, 4), cache, index), errc::bad_value, "the first new one is at 5");
        const auto got = block.forward(hidden(4, 9), cache, index);
        CHECK(cache.size() == 9);
        CHECK(index.size() == 9);
        CHECK(got.k.shape(0) == 0);
        auto small = block.make_cache(5);
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9), cache, small), errc::limit_exceeded, "capacity of 5");
        CHECK(small.size() == 0);
        // Of another layer that rotates, and one of heads.
        auto other = model.attention(5, form).make_cache(43);
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9), other, small), errc::bad_value,
                          "attends to keys and values of layer 0, and this is the cache of layer 5");
        auto heads = model.attention(8, attention_form::factored).make_cache(43);
        LARQL_CHECK_ERROR(block.forward(hidden(4, 9), heads, small), errc::shape_mismatch, "latent");
        // Wherever a call fails, the keys that it added go.
        std::size_t failures = 0;
        for (bool failed = true; failed; failures += failed ? 1 : 0) {
            (void)source.forward(rows(reference.read<2>("layer0.hidden"), 9, 20), cache);
            failing_executor threads(failures);
            failed = false;
            try {
                (void)block.forward(rows(reference.read<2>("layer4.hidden"), 9, 20), cache, index,
                                    {.threads = &threads});
            } catch (const std::runtime_error&) {
                failed = true;
            }
            CHECK(index.size() == (failed ? 9 : 20));
            cache.truncate(9);
        }
        CHECK(failures > 5);
        index.truncate(9);
        // An empty call changes nothing.
        CHECK(block.forward(hidden(4, 0), cache, index).out.shape(0) == 0);
        const std::vector<larql::cached_sequence<float>> sequences{{&cache, 0}};
        CHECK(plain.forward_batch(hidden(2, 0), sequences).out.shape(0) == 0);
    }
}

TEST_CASE("shared latents: without an indexer they are attended to as well, in batches, too") {
    const checkpoint model = checkpoint::open(folder_of(shared));
    const auto reference = reference_of(shared);
    const tensor<float, 2> of_source = reference.read<2>("layer5.hidden"), hidden = reference.read<2>("layer6.hidden");
    const auto dense_of = [&](std::size_t block, attention_form form) {
        attention_spec spec = model.attention(block, form).spec();
        spec.indexer = {};
        larql::attention_weights<float> weights = model.stored_weights(block);
        return attention_layer<float>(std::move(spec), std::move(weights));
    };
    const auto source = dense_of(5, attention_form::factored), block = dense_of(6, attention_form::factored);
    const auto latent_source = dense_of(5, attention_form::latent), latent = dense_of(6, attention_form::latent);
    auto cache = source.make_cache(64), latents = latent_source.make_cache(64);
    const auto a = source.forward(of_source, cache), b = latent_source.forward(of_source, latents);
    CHECK(relative_error(a.out, b.out) <= 1e-5);
    CHECK(relative_error(a.out, source.forward(of_source).out) <= 1e-6);
    const auto whole = block.forward(hidden, cache);
    CHECK(relative_error(latent.forward(hidden, latents).out, whole.out) <= 1e-5);
    const std::vector<larql::cached_sequence<float>> one{{&latents, 43}}, another{{&cache, 43}};
    CHECK(relative_error(latent.forward_batch(hidden, one).out, whole.out) <= 1e-5);
    CHECK(latents.size() == 43);
    // The source's cache has the tokens already; a batch of the source adds them to another's.
    CHECK(relative_error(block.forward_batch(hidden, another).out, whole.out) <= 1e-6);
    CHECK(cache.size() == 43);
    auto first = source.make_cache(64), second = source.make_cache(64);
    (void)source.forward(larql::testing::rows_of(of_source, 0, 7), second);
    auto mixed = of_source;  // 43 tokens of one sequence, of which the last 36 are another's next
    const std::vector<larql::cached_sequence<float>> two{{&first, 7}, {&second, 36}};
    const auto got = source.forward_batch(mixed, two).out;
    CHECK(relative_error(larql::testing::rows_of(got, 7, 36), larql::testing::rows_of(a.out, 7, 36)) <= 1e-5);
    CHECK(relative_error(larql::testing::rows_of(got, 0, 7), larql::testing::rows_of(a.out, 0, 7)) <= 1e-5);
    LARQL_CHECK_ERROR(block.finish(tensor<float, 3>::from_shape({43, 1, 1}), hidden), errc::unsupported_architecture,
                      "made of shared latents, in its factored form");
}

TEST_CASE("shared latents: costs are those of what a block makes and caches") {
    const checkpoint model = checkpoint::open(folder_of(shared));
    const auto cost = [&](std::size_t block, attention_form form) { return larql::cost_of(model.spec(block), form); };
    for (const attention_form form : {attention_form::factored, attention_form::latent}) {
        CHECK(cost(0, form).cached_per_token == 24 + 12);
        CHECK(cost(5, form).cached_per_token == 24);
        CHECK(cost(2, form).cached_per_token == 0);
        CHECK(cost(4, form).cached_per_token == 12);
        CHECK(cost(1, form).cached_per_token == 16 + 12);
        CHECK(cost(5, form).weights - cost(2, form).weights == 24 * 24);
        CHECK(cost(0, form).weights - cost(5, form).weights == 60 * 24 + (12 + 5) * 24);
    }
    CHECK(cost(8, attention_form::factored).cached_per_token == 3 * (14 + 10) + 12);
    // Keys and values of every cached latent are made at each call.
    CHECK(cost(2, attention_form::factored).flops_per_cached_token == 2 * 3 * (14 + 10) + 2 * 3 * (6 + 10) * 16);
    CHECK(cost(2, attention_form::latent).flops_per_cached_token == 2 * 3 * (16 + 24));
    CHECK(larql::cache_bytes(model.spec(4), attention_form::latent, 100, 2) == 100 * 12 * 2);
}

TEST_CASE("shared latents: every rule of the family's row shows in what is computed") {
    using larql::model_family;
    using larql::model_key;
    static model_family row;
    const auto is_ours = [](const model_family& family) { return family.name == "mistral_large4"; };
    const model_family& published = *std::ranges::find_if(larql::detail::families, is_ours);
    /// Whether a changed row gives other numbers, or none.
    const auto shows = [&](const std::string& name, const auto& change) {
        row = published;
        change(row);
        try {
            const checkpoint model = checkpoint::open(folder_of(name), {.families = {&row, 1}});
            return worst_error(model, name, attention_form::factored, 43) > 1e-5;
        } catch (const larql::error&) {
            return true;
        }
    };
    CHECK_FALSE(shows(shared, [](model_family&) {}));
    CHECK(shows(shared, [](model_family& f) { f.latent_eps = 1e-6; }));
    CHECK(shows(shared, [](model_family& f) { f.pairing = larql::rope_pairing::half_split; }));
    CHECK(shows(shared, [](model_family& f) { f.scale = larql::scale_rule::inverse_sqrt_head; }));
    CHECK(shows(shared, [](model_family& f) { f.nope = larql::nope_rule::none; }));
    CHECK(shows(shared, [](model_family& f) { f.learned_frequencies = false; }));
    CHECK(shows(shared, [](model_family& f) { f.temperature_per_head = false; }));
    CHECK(shows(shared, [](model_family& f) { f.reads = {}; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.pairing = larql::rope_pairing::half_split; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.order = larql::head_order::nope_rope; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.k_norm.eps = 1e-5; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.q_norm.eps = 1e-5; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.q_norm.kind = larql::norm_kind::rms; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.from_input = false; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.per_head = false; }));
    CHECK(shows(shared, [](model_family& f) { f.indexer.blocks = larql::indexer_blocks::every_block; }));
    CHECK(shows(unstated, [](model_family& f) { f.biases_by_key = {}; }));
    CHECK(shows(unstated, [](model_family& f) { f.defaults = {{{model_key::no_rope_layer_interval, 3.0}}}; }));
    CHECK(shows(unstated, [](model_family& f) { f.indexer.default_period = 2; }));
    CHECK(shows(unstated, [](model_family& f) { f.default_rope_type = {}; }));
    // Each number of the class's dictionary.
    static std::vector<larql::key_default> numbers;
    for (std::size_t i = 0; i < published.default_rope.size(); ++i) {
        CAPTURE(i);
        numbers.assign(published.default_rope.begin(), published.default_rope.end());
        numbers[i].value *= numbers[i].key == model_key::rope_beta_slow ? 20.0 : 0.1;
        CHECK(shows(unstated, [](model_family& f) { f.default_rope = numbers; }));
    }
}
