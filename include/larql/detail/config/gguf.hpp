// SPDX-License-Identifier: Apache-2.0
//
// GGUF metadata as a config.json. One metadata key has two meanings in different dialects, so the sizes of latent
// attention are taken from the tensors and the metadata is held against them.
#ifndef LARQL_DETAIL_CONFIG_GGUF_HPP
#define LARQL_DETAIL_CONFIG_GGUF_HPP

#include <larql/detail/config/fields.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/gguf.hpp>

#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace larql::detail {

/// The decimal number that a stored float stands for: 1e-6, not 9.999999974752427e-07.
inline double decimal_of_float(double stored) {
    const auto single = static_cast<float>(stored);
    if (static_cast<double>(single) != stored) return stored;
    char text[32];
    const auto written = std::to_chars(text, text + sizeof text, single);
    double result = stored;
    if (written.ec == std::errc{}) std::from_chars(text, written.ptr, result);
    return result;
}

/// Metadata of one architecture: keys are looked up as "<architecture>.<key>".
class gguf_fields {
public:
    gguf_fields(const gguf_file& file, std::string architecture, config_problems& problems)
        : m_file(&file), m_prefix(std::move(architecture) + "."), m_problems(&problems) {}

    [[nodiscard]] std::string key(std::string_view name) const { return m_prefix + std::string(name); }

    [[nodiscard]] std::optional<std::uint64_t> integer(std::string_view name) const {
        return guarded<std::uint64_t>(name, [&](const std::string& k) { return m_file->find<std::uint64_t>(k); });
    }
    [[nodiscard]] std::optional<double> number(std::string_view name) const {
        const auto value = guarded<double>(name, [&](const std::string& k) { return m_file->find<double>(k); });
        return value ? std::optional(decimal_of_float(*value)) : value;
    }
    [[nodiscard]] std::optional<std::string> text(std::string_view name) const {
        const auto value =
            guarded<std::string_view>(name, [&](const std::string& k) { return m_file->find<std::string_view>(k); });
        return value ? std::optional(std::string(*value)) : std::nullopt;
    }

    [[nodiscard]] std::uint64_t required(std::string_view name) const {
        const auto value = integer(name);
        if (!value && m_file->find_value(key(name)) == nullptr)
            m_problems->add(errc::missing_key, key(name), "required and absent");
        return value.value_or(0);
    }

    /// Adds a problem unless the key is absent or holds one of these values.
    void cross_check(std::string_view name, std::initializer_list<std::uint64_t> implied,
                     std::string_view dialect) const {
        const auto value = integer(name);
        if (!value) return;
        std::string expected;
        for (const std::uint64_t candidate : implied) {
            if (*value == candidate) return;
            expected += (expected.empty() ? "" : " or ") + std::to_string(candidate);
        }
        m_problems->add(errc::shape_mismatch, key(name),
                        "metadata says " + std::to_string(*value) + ", tensors imply " + expected + " (dialect " +
                            std::string(dialect) + ")");
    }

    [[nodiscard]] config_problems& problems() const noexcept { return *m_problems; }

private:
    template <class T, class Find>
    std::optional<T> guarded(std::string_view name, Find find) const {
        try {
            return find(key(name));
        } catch (const error& e) {  // collected with the rest; a wrong type is not the only problem a file may have
            m_problems->add(e.code(), key(name), e.problem());
            return std::nullopt;
        }
    }

    const gguf_file* m_file;
    std::string m_prefix;
    config_problems* m_problems;
};

/// The first block of a GGUF model that has this tensor, as "blk.N.", or nothing.
inline std::optional<std::string> first_block_with(const gguf_file& file, std::uint64_t blocks,
                                                   std::string_view tensor) {
    for (std::uint64_t n = 0; n < blocks; ++n) {
        std::string prefix = "blk." + std::to_string(n) + ".";
        if (file.find_tensor(prefix + std::string(tensor)) != nullptr) return prefix;
    }
    return std::nullopt;
}

/// How a GGUF file stores the up-projection of keys and values: "kv_b", "k_b+v_b", "all" or "".
inline std::string_view gguf_dialect(const gguf_file& file, const std::string& block_prefix) {
    const bool kv = file.find_tensor(block_prefix + "attn_kv_b.weight") != nullptr;
    const bool split = file.find_tensor(block_prefix + "attn_k_b.weight") != nullptr &&
                       file.find_tensor(block_prefix + "attn_v_b.weight") != nullptr;
    return kv && split ? "all" : kv ? "kv_b" : split ? "k_b+v_b" : "";
}

/// Rope scaling, as transformers writes it in `rope_scaling`.
inline void gguf_rope_to_config(const gguf_file& file, const gguf_fields& fields, bool tenfold_multiplier,
                                nlohmann::json& config) {
    if (const auto v = fields.number("rope.freq_base")) config["rope_theta"] = *v;
    if (const tensor_info* stored = file.find_tensor("rope_freqs.weight")) {
        // Llama 3's scaling is stored as its result: one divisor for each frequency.
        std::vector<float> divisors(static_cast<std::size_t>(stored->element_count()));
        dequantize(stored->type, file.bytes(*stored), divisors);
        config["rope_scaling"] = {{"rope_type", "divisors"},
                                  {"divisors", std::vector<double>(divisors.begin(), divisors.end())}};
        return;
    }
    const std::string type = fields.text("rope.scaling.type").value_or("linear");  // llama.cpp's own default
    const double factor = fields.number("rope.scaling.factor").value_or(1.0);
    if (type == "none" || (type == "linear" && factor == 1.0)) return;
    nlohmann::json scaling = {{"rope_type", type}, {"factor", factor}};
    if (const auto v = fields.integer("rope.scaling.original_context_length"))
        scaling["original_max_position_embeddings"] = *v;
    if (const auto v = fields.number("rope.scaling.yarn_beta_fast")) scaling["beta_fast"] = *v;
    if (const auto v = fields.number("rope.scaling.yarn_beta_slow")) scaling["beta_slow"] = *v;
    if (const auto v = fields.number("rope.scaling.yarn_log_multiplier"); v && *v != 0.0) {
        // The deepseek2 converters store 0.1 * mscale_all_dim. mscale is never stored; it equals mscale_all_dim in
        // every published model.
        const double mscale = tenfold_multiplier ? decimal_of_float(static_cast<float>(*v / 0.1)) : *v;
        scaling["mscale"] = mscale;
        scaling["mscale_all_dim"] = mscale;
    }
    config["rope_scaling"] = scaling;
}

/// Sizes of latent attention from the tensors of a block and the number of heads.
struct latent_sizes {
    std::uint64_t q_rank = 0, kv_rank = 0, nope = 0, rope = 0, value = 0;
};

/// The sizes that a block's tensors imply; a contradiction between them is an error.
inline latent_sizes latent_sizes_of_block(const gguf_file& file, const std::string& block, std::uint64_t heads) {
    const auto matrix = [&](const char* name) -> const tensor_info& {
        const tensor_info& info = file.at_tensor(block + name);
        if (info.shape.size() != 2)
            fail(errc::shape_mismatch, "expected 2 dimensions, got " + std::to_string(info.shape.size()),
                 {.file = file.shard_path(info.shard), .subject = std::string(info.name)});
        return info;
    };
    const auto per_head = [&](const tensor_info& info, std::uint64_t extent) {
        if (heads == 0 || extent % heads != 0)
            fail(errc::shape_mismatch,
                 "expected a multiple of " + std::to_string(heads) + " heads, got " + std::to_string(extent),
                 {.file = file.shard_path(info.shard), .subject = std::string(info.name)});
        return extent / heads;
    };
    const auto subtract = [&](const tensor_info& info, std::uint64_t whole, std::uint64_t part) {
        if (whole <= part)
            fail(errc::shape_mismatch,
                 "expected more than " + std::to_string(part) + " rows, got " + std::to_string(whole),
                 {.file = file.shard_path(info.shard), .subject = std::string(info.name)});
        return whole - part;
    };
    latent_sizes sizes;
    sizes.kv_rank = file.at_tensor(block + "attn_kv_a_norm.weight").element_count();
    const tensor_info& kv_a = matrix("attn_kv_a_mqa.weight");
    sizes.rope = subtract(kv_a, kv_a.shape[0], sizes.kv_rank);
    const bool factored_q = file.find_tensor(block + "attn_q_a.weight") != nullptr;
    if (factored_q) sizes.q_rank = matrix("attn_q_a.weight").shape[0];
    const tensor_info& q = matrix(factored_q ? "attn_q_b.weight" : "attn_q.weight");
    sizes.nope = subtract(q, per_head(q, q.shape[0]), sizes.rope);
    const tensor_info& output = matrix("attn_output.weight");
    sizes.value = per_head(output, output.shape[1]);
    return sizes;
}

/// Keys of a deepseek2-family file.
inline void gguf_mla_to_config(const gguf_file& file, const gguf_fields& fields, std::uint64_t heads,
                               std::uint64_t blocks, nlohmann::json& config) {
    const auto block = first_block_with(file, blocks, "attn_kv_a_mqa.weight");
    latent_sizes sizes;
    if (block) {
        sizes = latent_sizes_of_block(file, *block, heads);
        const std::string_view dialect = gguf_dialect(file, *block);
        const std::uint64_t key = sizes.nope + sizes.rope;
        fields.cross_check("attention.q_lora_rank", {sizes.q_rank}, dialect);
        fields.cross_check("attention.kv_lora_rank", {sizes.kv_rank}, dialect);
        fields.cross_check("rope.dimension_count", {sizes.rope}, dialect);
        fields.cross_check("attention.key_length_mla", {key}, dialect);
        fields.cross_check("attention.value_length_mla", {sizes.value}, dialect);
        fields.cross_check("attention.key_length", {key, sizes.kv_rank + sizes.rope}, dialect);
        fields.cross_check("attention.value_length", {sizes.value, sizes.kv_rank}, dialect);
        fields.cross_check("attention.head_count_kv", {1, heads}, dialect);
    } else {  // metadata alone
        sizes.q_rank = fields.integer("attention.q_lora_rank").value_or(0);
        sizes.kv_rank = fields.required("attention.kv_lora_rank");
        sizes.rope = fields.required("rope.dimension_count");
        const bool split = fields.integer("attention.key_length_mla").value_or(0) != 0;
        const std::uint64_t key = fields.required(split ? "attention.key_length_mla" : "attention.key_length");
        sizes.value = fields.required(split ? "attention.value_length_mla" : "attention.value_length");
        sizes.nope = key > sizes.rope ? key - sizes.rope : 0;
    }
    config["q_lora_rank"] = sizes.q_rank == 0 ? nlohmann::json(nullptr) : nlohmann::json(sizes.q_rank);
    config["kv_lora_rank"] = sizes.kv_rank;
    config["qk_nope_head_dim"] = sizes.nope;
    config["qk_rope_head_dim"] = sizes.rope;
    config["v_head_dim"] = sizes.value;
    config["num_key_value_heads"] = heads;
}

/// The whole translation; see `larql::to_config_json`.
inline nlohmann::json gguf_to_config(const gguf_file& file) {
    const std::string path = file.shard_path(0);
    const auto architecture = file.find<std::string_view>("general.architecture");
    if (!architecture)
        fail(errc::missing_key, "required and absent", {.file = path, .subject = "general.architecture"});
    config_problems problems;
    const gguf_fields fields(file, std::string(*architecture), problems);
    nlohmann::json config = nlohmann::json::object();

    const std::uint64_t heads = fields.required("attention.head_count");
    const std::uint64_t all_blocks = fields.required("block_count");
    const std::uint64_t predicting = fields.integer("nextn_predict_layers").value_or(0);
    config["hidden_size"] = fields.required("embedding_length");
    config["num_attention_heads"] = heads;
    config["num_hidden_layers"] = all_blocks > predicting ? all_blocks - predicting : 0;
    if (predicting != 0) config["num_nextn_predict_layers"] = predicting;
    if (const auto v = fields.integer("context_length")) config["max_position_embeddings"] = *v;
    if (const auto v = fields.integer("vocab_size")) config["vocab_size"] = *v;
    if (const auto v = fields.number("attention.layer_norm_rms_epsilon")) config["rms_norm_eps"] = *v;

    if (*architecture == "deepseek2") {
        // Both families share an architecture name; sigmoid routing came with V3. Their attention is the same.
        const bool sigmoid = fields.integer("expert_gating_func").value_or(1) == 2;
        config["model_type"] = sigmoid ? "deepseek_v3" : "deepseek_v2";
        config["architectures"] = {sigmoid ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"};
        gguf_mla_to_config(file, fields, heads, all_blocks < 4096 ? all_blocks : 4096, config);
        gguf_rope_to_config(file, fields, true, config);
    } else if (*architecture == "llama") {
        config["model_type"] = "llama";
        config["architectures"] = {"LlamaForCausalLM"};
        config["num_key_value_heads"] = fields.integer("attention.head_count_kv").value_or(heads);
        if (const auto v = fields.integer("attention.key_length")) config["head_dim"] = *v;
        gguf_rope_to_config(file, fields, false, config);
        // llama.cpp's converter reorders the rows of q and k for its interleaved kernel.
        config["larql"] = {{"pairing", "interleaved"}};
    } else {
        fail(errc::unsupported_architecture, "larql does not implement \"" + std::string(*architecture) + "\"",
             {.file = path, .subject = "general.architecture"});
    }
    problems.throw_if_any({.file = path});
    return config;
}

}  // namespace larql::detail

#endif
