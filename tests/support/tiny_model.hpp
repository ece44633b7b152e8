// SPDX-License-Identifier: Apache-2.0
//
// Folders of config.json and safetensors with random float32 tensors, for tests of what larql makes of them.
#ifndef LARQL_TESTS_SUPPORT_TINY_MODEL_HPP
#define LARQL_TESTS_SUPPORT_TINY_MODEL_HPP

#include <larql/safetensors_writer.hpp>
#include <support/files.hpp>
#include <support/reference_gqa.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace larql::testing {

/// Tensors by name, in double; their numbers are those of floats.
class tiny_model {
public:
    explicit tiny_model(std::uint64_t seed = 1) : m_random(seed) {}

    nlohmann::json config = nlohmann::json::object();

    const matrix& add(const std::string& name, std::size_t rows, std::size_t cols) {
        return m_matrices[name] = random_matrix(m_random, rows, cols, 1.0 / std::sqrt(static_cast<double>(cols)));
    }
    const vector& add_vector(const std::string& name, std::size_t length, double mean = 0.0) {
        vector v = random_vector(m_random, length, mean, 0.5);
        for (double& x : v) x = static_cast<double>(static_cast<float>(x));
        return m_vectors[name] = v;
    }
    void remove(const std::string& name) {
        m_matrices.erase(name);
        m_vectors.erase(name);
    }
    [[nodiscard]] const matrix& at(const std::string& name) const { return m_matrices.at(name); }
    [[nodiscard]] random_source& random() { return m_random; }

    void write(const std::filesystem::path& folder) const {
        std::filesystem::create_directories(folder);
        write_file(folder / "config.json", config.dump(2));
        safetensors_writer file(folder / "model.safetensors", {.replace = true});
        std::map<std::string, std::vector<float>> data;
        for (const auto& [name, m] : m_matrices) {
            file.add_tensor(name, dtype::f32, {m.shape(0), m.shape(1)});
            data[name].assign(m.begin(), m.end());
        }
        for (const auto& [name, v] : m_vectors) {
            file.add_tensor(name, dtype::f32, {v.size()});
            data[name].assign(v.begin(), v.end());
        }
        for (const auto& [name, values] : data) file.write(name, std::as_bytes(std::span(values)));
        file.commit();
    }

private:
    random_source m_random;
    std::map<std::string, matrix> m_matrices;
    std::map<std::string, vector> m_vectors;
};

inline constexpr std::size_t tiny_width = 24, tiny_heads = 4, tiny_groups = 2, tiny_dim = 8;

/// A config.json of a llama of these sizes.
inline nlohmann::json tiny_llama_config(std::size_t layers = 1) {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"hidden_size", tiny_width},
            {"num_hidden_layers", layers},
            {"num_attention_heads", tiny_heads},
            {"num_key_value_heads", tiny_groups},
            {"head_dim", tiny_dim},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 10000.0}};
}

/// Attention of one layer under transformers' names.
inline gqa_tensors add_llama_layer(tiny_model& model, const std::string& prefix, std::size_t layer = 0) {
    const std::string at = prefix + "layers." + std::to_string(layer) + ".self_attn.";
    gqa_tensors w;
    w.q = model.add(at + "q_proj.weight", tiny_heads * tiny_dim, tiny_width);
    w.k = model.add(at + "k_proj.weight", tiny_groups * tiny_dim, tiny_width);
    w.v = model.add(at + "v_proj.weight", tiny_groups * tiny_dim, tiny_width);
    w.o = model.add(at + "o_proj.weight", tiny_width, tiny_heads * tiny_dim);
    return w;
}

inline gqa_rules tiny_llama_rules(double theta = 10000.0) {
    gqa_rules rules{.heads = tiny_heads, .groups = tiny_groups, .dim = tiny_dim, .scale = 1.0 / std::sqrt(8.0)};
    for (std::size_t j = 0; j < tiny_dim / 2; ++j)
        rules.frequencies.push_back(std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(tiny_dim)));
    return rules;
}

}  // namespace larql::testing

#endif
