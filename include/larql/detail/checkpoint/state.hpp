// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint knows: its files, what they state, the model that this makes, and where its tensors lie.
#ifndef LARQL_DETAIL_CHECKPOINT_STATE_HPP
#define LARQL_DETAIL_CHECKPOINT_STATE_HPP

#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/files.hpp>
#include <larql/detail/checkpoint/tensors.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/read.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/matrix_input.hpp>
#include <larql/model_config.hpp>
#include <larql/model_family.hpp>
#include <larql/weight_reader.hpp>
#include <larql/weight_storage.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// Weights of a block, each put once where they shall stand: several roles may be made of one.
struct held_weights {
    weight_storage storage;
    std::map<std::string, weight> by_name{};

    const weight& at(const weight_reader& reader, const std::string& name) {
        const auto known = by_name.find(name);
        return known != by_name.end() ? known->second
                                      : by_name.emplace(name, reader.at(name).in(storage)).first->second;
    }
};

/// What a checkpoint is a handle to.
struct checkpoint_state {
    checkpoint_files files;
    std::optional<weight_reader> reader;
    nlohmann::json config_json;
    std::optional<model_values> values;
    naming world = naming::safetensors;
    const model_family* family = nullptr;
    std::optional<model_config> config;
    std::exception_ptr problem;
    model_tensors tensors;

    void read(const open_options& options);
    void read_gguf(const open_options& options);
    void read_json(const open_options& options);
    void find_tensors(naming names);
    void place_tensors(const open_options& options);
    void read_frequencies();

    [[nodiscard]] const weight_reader& weights() const {
        if (!reader) fail(errc::missing_tensor, "the checkpoint has no tensors", {.file = files.path});
        return *reader;
    }
    [[nodiscard]] const model_config& require_config() const {
        if (!config) std::rethrow_exception(problem);
        return *config;
    }
    [[nodiscard]] const attention_spec& spec(std::size_t block) const;
    [[nodiscard]] matrix_input<float> part(const larql::stored_rows& rows, const attention_spec& spec,
                                           held_weights& held) const;
    [[nodiscard]] vector_input<float> vector(const std::string& name, std::size_t length, std::size_t begin,
                                             std::size_t end, std::size_t runs = 1, std::size_t rows = 1) const;
    [[nodiscard]] vector_input<float> bias(const role_row& row, std::size_t block) const;
    void read_role(const role_row& row, std::size_t block, held_weights& held, attention_weights<float>& weights) const;
    [[nodiscard]] attention_weights<float> read_block(const attention_spec& wanted, std::size_t block,
                                                      weight_storage storage) const;
};

/// What `over` states of rope takes the place of every statement of the same in `config`: a base beside the
/// dictionaries that of one within them, a dictionary one of either name, but not the base or the context that it does
/// not state.
inline void lay_over_rope(nlohmann::json& config, const nlohmann::json& over) {
    constexpr const char* dictionaries[] = {"rope_scaling", "rope_parameters"};
    constexpr const char* beside[] = {"rope_theta", "partial_rotary_factor", "original_max_position_embeddings"};
    const nlohmann::json* stated = nullptr;
    for (const char* name : dictionaries)
        if (over.contains(name)) stated = &over.at(name);
    for (const char* key : beside)
        for (const char* name : dictionaries) {
            if (!config.contains(name) || !config[name].is_object() || !config[name].contains(key)) continue;
            // Moved beside the dictionaries, where it holds until something else is stated.
            if (!over.contains(key) && stated != nullptr && !config.contains(key)) config[key] = config[name][key];
            if (over.contains(key)) config[name].erase(key);
        }
    if (stated == nullptr) return;
    for (const char* name : dictionaries) config.erase(name);
    if (!stated->is_object()) return;
    for (const char* key : beside)
        if (stated->contains(key)) config.erase(key);
}

/// `config` with what `over` states in its place. Objects that hold a language model's configuration are merged, others
/// (rope dictionaries) replaced as a whole; a rope dictionary replaces one of either name.
inline void lay_over(nlohmann::json& config, const nlohmann::json& over) {
    if (!over.is_object()) fail(errc::wrong_type, "expected a JSON object, got " + shown(over), {.subject = "config"});
    if (!config.is_object()) config = nlohmann::json::object();
    nlohmann::json* target = &config;
    const text_part text = find_text_part(config);
    if (!text.path.empty() && find_text_part(over).path.empty())  // stated for the language model without its wrapper
        target = const_cast<nlohmann::json*>(text.object);
    lay_over_rope(*target, over);
    for (const auto& [key, value] : over.items()) {
        const auto there = target->find(key);
        const bool nested = std::ranges::find(text_objects, std::string_view(key)) != std::end(text_objects);
        if (nested && value.is_object() && there != target->end() && there->is_object())
            lay_over(*there, value);
        else
            (*target)[key] = value;
    }
}

inline void checkpoint_state::read(const open_options& options) {
    try {
        if (files.gguf) reader.emplace(files.gguf);
        if (files.gguf && !files.config_text) {
            world = naming::gguf;
            read_gguf(options);
        } else {
            read_json(options);
        }
        if (reader) place_tensors(options);
    } catch (const error&) {
        if (files.safetensors && !reader) reader.emplace(files.safetensors);
        config.reset();
        problem = std::current_exception();
    }
}

inline void checkpoint_state::read_gguf(const open_options& options) {
    const config_options how{options.families, options.unknown};
    read_config read = read_gguf_config(*files.gguf, how, options.config.json());
    values = read.values;
    family = read.values.family;
    config = finish_gguf_config(std::move(read), *files.gguf, how);
    if (options.config.json() != nullptr) config->container_loses.clear();
    find_tensors(world);
}

/// A config.json, or what larql wrote of one into a GGUF file of its own.
inline void checkpoint_state::read_json(const open_options& options) {
    const config_options how{options.families, options.unknown};
    const error_where where{.file = files.config_path};
    if (files.config_text) config_json = parse_config_json(*files.config_text, where);
    if (options.config.json() != nullptr) lay_over(config_json, *options.config.json());
    if (files.safetensors) reader.emplace(files.safetensors, quantization_config::find_in(config_json, where));
    if (config_json.is_null())
        fail(errc::missing_key, "no config.json beside the tensors says what the model is", {.file = files.path});
    read_config read = read_json_config(config_json, where, how);
    family = read.values.family;
    find_tensors(world);
    if (reader && family->kind == attention_kind::mla && !read.values.top.stated(model_key::q_lora_rank)) {
        const auto rank = tensors.query_rank([&](const std::string& name) { return reader->at(name).rows(); });
        if (rank) read.values.top.set(model_key::q_lora_rank, *rank, "q_lora_rank");
    }
    values = read.values;
    config = finish_json_config(std::move(read), where, how);
}

inline void checkpoint_state::find_tensors(naming names) {
    tensors = model_tensors(*family, names, reader ? reader->names() : std::vector<std::string>());
}

/// Settles where the model's tensors lie, and refuses those of attention that nothing reads.
inline void checkpoint_state::place_tensors(const open_options& options) {
    tensors.choose_prefix(*config, files.path);
    read_frequencies();
    for (std::size_t block = config->block_begin; block < config->block_end; ++block) {
        attention_spec& block_spec = config->blocks[block];
        for (const role_row& row : attention_roles)
            if (block_spec.possible_biases.contains(row.role) &&
                tensors.find(identity_of(block_spec, row.role, true)) != nullptr)
                block_spec.biases.insert(row.role);
        config->attention_bias = config->attention_bias || !block_spec.biases.empty();
    }
    const std::vector<std::string> unclaimed = tensors.unclaimed(*config);
    if (options.unknown == unknown_policy::ignore) {
        config->warnings.insert(config->warnings.end(), unclaimed.begin(), unclaimed.end());
        return;
    }
    if (unclaimed.empty()) return;
    constexpr std::size_t listed = 20;
    std::string all;
    for (std::size_t i = 0; i < std::min(unclaimed.size(), listed); ++i) all += (i == 0 ? "" : "; ") + unclaimed[i];
    if (unclaimed.size() > listed) all += concat({"; and ", unclaimed.size() - listed, " more"});
    fail(errc::not_understood,
         all +
             ". Tensors within attention that nothing reads change its results: pass over them with "
             "--unknown ignore (checkpoint::open's `unknown`) if you know better",
         {.file = files.path, .subject = "tensors"});
}

inline const attention_spec& checkpoint_state::spec(std::size_t block) const {
    const model_config& model = require_config();
    if (block >= model.blocks.size())
        fail(errc::bad_value, concat({"expected a block from 0 to ", model.blocks.size() - 1, ", got ", block}),
             {.file = files.path, .subject = "layer"});
    return model.blocks[block];
}

}  // namespace larql::detail

#endif
