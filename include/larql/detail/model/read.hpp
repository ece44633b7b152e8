// SPDX-License-Identifier: Apache-2.0
//
// From a file to a model_config: find the family, read what is stated, resolve it to specs.
#ifndef LARQL_DETAIL_MODEL_READ_HPP
#define LARQL_DETAIL_MODEL_READ_HPP

#include <larql/detail/concat.hpp>
#include <larql/model_config.hpp>

#include <larql/detail/io/json.hpp>
#include <larql/detail/model/families.hpp>
#include <larql/detail/model/gguf_source.hpp>
#include <larql/detail/model/json_layers.hpp>
#include <larql/detail/model/json_source.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/params_source.hpp>
#include <larql/detail/model/print.hpp>
#include <larql/detail/model/resolve.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/gguf.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace larql::detail {

/// The family for which `fits` holds, the caller's first; null if there is none.
template <class Find>
const model_family* find_family(const config_options& options, Find find) {
    const model_family* found = find(options.families);
    return found != nullptr ? found : find(std::span<const model_family>(families));
}

inline const model_family* find_model_type(const config_options& options, std::string_view model_type) {
    if (model_type.empty()) return nullptr;
    return find_family(options, [&](std::span<const model_family> rows) -> const model_family* {
        const auto named = [&](const model_family& row) {
            return std::ranges::find(row.model_types, model_type) != row.model_types.end();
        };
        const auto found = std::ranges::find_if(rows, named);
        return found != rows.end() ? &*found : nullptr;
    });
}

/// Whether a configuration has what a row's models are known by.
inline bool has_sign(const model_family& row, const nlohmann::json& text) {
    const auto at = text.find(row.sign.name);
    if (row.sign.name.empty() || at == text.end() || at->is_null()) return row.sign.name.empty();
    return row.sign.value.empty() || says(*at, row.sign.value);
}

/// How well a configuration fits a row: a class of the row counts most, then its sign.
inline int fit_of(const model_family& row, const nlohmann::json& text) {
    const int sign = row.sign.name.empty() ? 0 : has_sign(row, text) ? 1 : -1;
    const auto names = text.find("architectures");
    const auto is_own = [&](const nlohmann::json& name) {
        return name.is_string() &&
               std::ranges::find(row.classes, name.get_ref<const std::string&>()) != row.classes.end();
    };
    const bool own = names != text.end() && names->is_array() && std::ranges::any_of(*names, is_own);
    return sign + (own ? 10 : 0);
}

/// Of the rows with a model_type, the one that a configuration fits best; of equals the first.
/// @throws error errc::unsupported_architecture if it lacks the sign of all
inline const model_family* told_apart(const config_options& options, const model_family* named,
                                      std::string_view model_type, const nlohmann::json& text,
                                      const error_where& where) {
    if (named == nullptr) return nullptr;
    int best = fit_of(*named, text);
    const auto look = [&](std::span<const model_family> rows) {
        for (const model_family& row : rows) {
            if (std::ranges::find(row.model_types, model_type) == row.model_types.end()) continue;
            if (const int fit = fit_of(row, text); fit > best) {
                best = fit;
                named = &row;
            }
        }
    };
    const bool own = std::ranges::any_of(options.families, [&](const model_family& row) { return &row == named; });
    look(own ? options.families : std::span<const model_family>(families));
    if (!has_sign(*named, text)) {
        const auto at = text.find(named->sign.name);
        fail(errc::unsupported_architecture,
             "larql does not implement \"" + std::string(model_type) + "\" whose \"" + std::string(named->sign.name) +
                 "\" is " + (at == text.end() ? "absent" : shown(*at)),
             {.file = where.file, .subject = "model_type"});
    }
    return named;
}

inline const model_family& require_family(const model_family* family, const std::string& name, const char* key,
                                          const std::string& file) {
    const error_where where{.file = file, .subject = key};
    if (name.empty()) fail(errc::unsupported_architecture, "no model_type says what this model is", where);
    if (family == nullptr) fail(errc::unsupported_architecture, "larql does not implement \"" + name + "\"", where);
    if (!family->refused.empty())
        fail(errc::unsupported_architecture,
             "larql does not implement \"" + name + "\": " + std::string(family->refused), where);
    return *family;
}

/// model_type of folders that larql wrote in a form that transformers does not have.
inline constexpr std::string_view larql_model_types[] = {"larql-factored", "larql-dense", "larql-latent"};

/// What larql wrote about the form of the tensors.
struct stored_form {
    attention_form form = attention_form::factored;
    std::optional<head_order> order{};
    std::optional<rope_pairing> pairing{};
    std::optional<std::pair<std::size_t, std::size_t>> layers{};
    std::string model_type;  ///< of the model that was converted
};

inline std::optional<stored_form> read_stored_form(const nlohmann::json& config, config_problems& problems) {
    const auto type = config.find("model_type");
    const bool ours =
        type != config.end() && type->is_string() &&
        std::ranges::find(larql_model_types, type->get_ref<const std::string&>()) != std::end(larql_model_types);
    const auto object = config.find("larql");
    if (!ours) {
        if (object != config.end())
            problems.add(errc::bad_value, "larql", "describes converted tensors, which no other model_type has");
        return std::nullopt;
    }
    stored_form stored;
    stored.form = attention_form_from_name(type->get<std::string>().substr(std::string_view("larql-").size())).value();
    if (object == config.end() || !object->is_object()) {
        problems.add(errc::missing_key, "larql", "required and absent");
        return stored;
    }
    const auto text = [&](const char* key, auto from_name, auto& member) {
        const auto at = object->find(key);
        if (at == object->end()) return;
        if (at->is_string())
            if (const auto value = from_name(at->template get<std::string>())) {
                member = *value;
                return;
            }
        problems.add(errc::bad_value, std::string("larql.") + key, "unknown value " + shown(*at));
    };
    text("row_order", head_order_from_name, stored.order);
    text("pairing", rope_pairing_from_name, stored.pairing);
    text(
        "model_type", [](std::string name) { return std::optional(std::move(name)); }, stored.model_type);
    if (const auto layers = object->find("layers"); layers != object->end()) {
        const auto number = [&](std::size_t i) { return layers->at(i).get<std::size_t>(); };
        if (layers->is_array() && layers->size() == 2 && layers->at(0).is_number_integer() && layers->at(0) >= 0 &&
            layers->at(1).is_number_integer() && number(0) < number(1))
            stored.layers = std::pair(number(0), number(1));
        else
            problems.add(errc::bad_value, "larql.layers", "expected two block numbers, got " + shown(*layers));
    }
    return stored;
}

/// Every class that `architectures` names must be one of the family's, or a known head of one: a draft head of another
/// model may call itself by the family's model_type.
inline void check_classes(const nlohmann::json& text, const model_family& family, const std::string& path,
                          config_problems& problems, std::string& architecture) {
    const auto names = text.find("architectures");
    if (names == text.end() || !names->is_array()) return;
    for (const nlohmann::json& name : *names) {
        if (!name.is_string()) continue;
        if (architecture.empty()) architecture = name.get<std::string>();
        if (std::ranges::find(family.classes, name.get_ref<const std::string&>()) == family.classes.end())
            problems.add(errc::unsupported_architecture, path + "architectures",
                         shown(name) + " is not a class of \"" + std::string(family.name) + "\" that larql knows");
    }
}

/// Fills a model from what was stated.
inline model_config resolve_model(model_values values, const std::optional<stored_form>& stored,
                                  const config_options& options, config_problems problems, const error_where& where) {
    model_config model;
    model.family = std::string(values.family->name);
    model.model_type = values.model_type;
    model.architecture = values.architecture;
    model.attention = values.family->kind;
    std::vector<std::string> not_understood = values.not_understood;
    for (const rope_values& rope : values.ropes)
        not_understood.insert(not_understood.end(), rope.not_understood.begin(), rope.not_understood.end());
    spec_resolver resolver(values, problems, not_understood);
    model.num_hidden_layers = resolver.layers();
    model.blocks = resolver.blocks();
    model.hidden_size = values.top.size(model_key::hidden_size);
    model.vocab_size = values.top.size(model_key::vocab_size);
    model.num_nextn_predict_layers = values.top.size(model_key::num_nextn_predict_layers);
    model.rms_norm_eps = resolver.rms_norm_eps();
    model.block_end = model.blocks.size();
    if (stored) {
        model.form = stored->form;
        if (stored->layers) std::tie(model.block_begin, model.block_end) = *stored->layers;
        if (model.block_end > model.blocks.size())
            problems.add(errc::bad_value, "larql.layers",
                         concat({"ends at ", model.block_end, ", the model has ", model.blocks.size(), " blocks"}));
    }
    for (std::size_t b = 0; b < model.blocks.size(); ++b) {
        attention_spec& spec = model.blocks[b];
        if (stored) {
            spec.form = stored->form;
            spec.geometry.order = stored->order.value_or(spec.geometry.order);
            spec.geometry.pairing = stored->pairing.value_or(spec.geometry.pairing);
        }
        if (values.family->adjust != nullptr) values.family->adjust(model, b, spec);
        model.attention_bias = model.attention_bias || !spec.biases.empty();
    }
    const auto windowed = [](const attention_spec& spec) { return spec.sliding_window != 0; };
    if (reads_window(*values.family) && std::ranges::none_of(model.blocks, windowed))
        model.unused_sliding_window = values.top.size(model_key::sliding_window);
    if (values.family->windows != window_rule::chunks)
        model.unused_chunk_size = values.top.size(model_key::attention_chunk_size);
    if (options.unknown == unknown_policy::ignore) {
        model.warnings = std::move(not_understood);
    } else if (!not_understood.empty()) {
        std::string all;
        for (const std::string& sentence : not_understood) all += (all.empty() ? "" : "; ") + sentence;
        problems.add(errc::not_understood, "configuration",
                     all +
                         ". What changes attention and is not understood is refused: state what is meant with "
                         "--config (checkpoint::open's `config`), or pass over it with --unknown ignore");
    }
    problems.throw_if_any(where);
    return model;
}

/// What config.json states, through the rows of its family.
struct read_config {
    model_values values;
    std::optional<stored_form> stored;
    config_problems problems;
};

inline read_config read_json_config(const nlohmann::json& config, const error_where& where,
                                    const config_options& options, const model_family* known = nullptr) {
    if (!config.is_object()) fail(errc::wrong_type, "expected a JSON object, got " + shown(config), where);
    read_config result;
    const text_part text = find_text_part(config);
    result.stored = read_stored_form(config, result.problems);
    const auto type_in = [](const nlohmann::json& object) {
        const auto at = object.find("model_type");
        return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
    };
    model_values& values = result.values;
    values.model_type = result.stored ? result.stored->model_type : type_in(*text.object);
    if (values.model_type.empty()) values.model_type = type_in(config);
    const bool params = is_params_json(config) && (values.model_type.empty() || values.model_type == "transformer");
    const model_family* named =
        params
            ? find_family(options, [&](auto rows) { return find_params_family(rows, config); })
            : told_apart(options, find_model_type(options, values.model_type), values.model_type, *text.object, where);
    if (params && named != nullptr) values.model_type = named->model_types.front();
    values.family = known != nullptr && values.model_type.empty()
                        ? known
                        : &require_family(named, values.model_type, "model_type", where.file);
    if (!result.stored) check_classes(*text.object, *values.family, text.path, result.problems, values.architecture);
    read_json_values(*text.object, text.path, result.problems, values);
    if (!values.family->window_keys.empty() || values.family->lists(model_key::global_head_dim))
        read_json_layers(*text.object, text.path, result.problems, values);
    if (values.family->head_counts) read_json_head_counts(*text.object, text.path, result.problems, values);
    if (values.family->rope_lists) read_json_layer_ropes(*text.object, text.path, result.problems, values);
    if (values.family->block_configs) read_json_blocks(*text.object, text.path, result.problems, values);
    if (values.family->params_json) read_params_objects(*text.object, result.problems, values);
    if (!text.path.empty()) check_wrapper(config, *text.object, text.path, values);
    return result;
}

/// Sets the biases of blocks where no key states them, in GGUF and in what larql converted: those that the family
/// always has, and those that the tensors show.
inline void expect_biases_in_tensors(model_config& model, const model_family& family) {
    for (attention_spec& spec : model.blocks) {
        if (spec.form == attention_form::factored) {
            spec.biases = family.biases;
            spec.possible_biases = family.biases_by_key;
            continue;
        }
        spec.biases = {};
        spec.possible_biases = {tensor_role::q,           tensor_role::q_a, tensor_role::kv_a, tensor_role::k,
                                tensor_role::kv_a_latent, tensor_role::v,   tensor_role::o};
    }
}

inline model_config finish_json_config(read_config read, const error_where& where, const config_options& options) {
    const model_family& family = *read.values.family;
    const bool converted = read.stored && read.stored->form != attention_form::factored;
    model_config model = resolve_model(std::move(read.values), read.stored, options, std::move(read.problems), where);
    if (converted) expect_biases_in_tensors(model, family);
    return model;
}

/// What a GGUF file states, and over it what a configuration of the caller's does.
inline read_config read_gguf_config(const gguf_file& file, const config_options& options,
                                    const nlohmann::json* over = nullptr) {
    const std::string path = file.shard_path(0);
    const auto architecture = file.find<std::string>("general.architecture");
    if (!architecture)
        fail(errc::missing_key, "required and absent", {.file = path, .subject = "general.architecture"});
    const model_family* family = find_family(
        options, [&](std::span<const model_family> rows) { return find_gguf_family(rows, file, *architecture); });
    read_config result;
    model_values& values = result.values;
    std::optional<read_config> stated;
    if (over != nullptr) {
        const error_where caller{.file = "--config"};
        stated = read_json_config(*over, caller, options, family);
        stated->problems.throw_if_any(caller);
        if (stated->stored)
            fail(errc::bad_value, "describes converted tensors, which GGUF does not hold",
                 {.file = path, .subject = "larql"});
        if (stated->values.family->gguf_architecture != *architecture)
            fail(errc::bad_value,
                 "model_type \"" + stated->values.model_type + "\" is not stored as architecture \"" + *architecture +
                     "\"",
                 {.file = path, .subject = "general.architecture"});
        family = stated->values.family;
    }
    values.family = &require_family(family, *architecture, "general.architecture", path);
    values.model_type = std::string(values.family->model_types.front());
    values.architecture = std::string(values.family->classes.front());
    read_gguf_values(file, *architecture, result.problems, values);
    if (stated) {
        values.top.overlay(stated->values.top);
        values.class_defaults = !stated->values.model_type.empty();  // a whole configuration, not a few keys
        // A rope dictionary says all of the scaling: what the file says of it goes as a whole.
        const nlohmann::json& text = *find_text_part(*over).object;
        if (!stated->values.ropes.empty() || text.contains("rope_scaling") || text.contains("rope_parameters"))
            values.ropes = std::move(stated->values.ropes);
        for (std::string& sentence : stated->values.not_understood)
            values.not_understood.push_back(std::move(sentence));
    }
    return result;
}

inline model_config finish_gguf_config(read_config read, const gguf_file& file, const config_options& options) {
    const model_family& family = *read.values.family;
    const bool loses = !family.gguf_loses.empty();
    model_config model = resolve_model(std::move(read.values), std::nullopt, options, std::move(read.problems),
                                       {.file = file.shard_path(0)});
    expect_biases_in_tensors(model, family);
    if (loses) model.container_loses = std::string(family.gguf_loses);
    return model;
}

}  // namespace larql::detail

#endif
