// SPDX-License-Identifier: Apache-2.0
//
// larql-inspect: what a checkpoint is, and what its attention costs in each form; tensors as float32 on request.
#include <larql/attention_cost.hpp>
#include <larql/checkpoint.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/printable.hpp>
#include <larql/safetensors_writer.hpp>

#include "support/listing.hpp"
#include "support/output.hpp"
#include "support/plan.hpp"
#include "support/program.hpp"
#include "support/reading.hpp"
#include "support/spec_json.hpp"
#include "support/units.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using nlohmann::ordered_json;

constexpr const char* program_name = "larql-inspect";

struct arguments {
    std::string path;
    bool json = false;
    bool tensors = false;
    std::string dump;
    bool force = false;
    std::vector<std::string> names;
    std::uint64_t plan = 0;  // tokens; 0: none
    larql::program::reading reading;
};

constexpr std::uint64_t assumed_bytes_per_number = 2;  // bf16 and f16, as engines hold weights and caches

std::string architecture_of(const larql::checkpoint& model) {
    if (model.gguf() != nullptr)
        return std::string(model.gguf()->find<std::string_view>("general.architecture").value_or(""));
    return model.find_config() != nullptr ? model.config().architecture : "";
}

std::string problem_of(const larql::checkpoint& model) {
    try {
        (void)model.config();
    } catch (const larql::error& e) {
        return e.what();
    }
    return {};
}

/// What a block caches however long the sequence is: windows and open entries of compressed attention.
std::uint64_t constant_cache_bytes(const larql::attention_spec& spec) {
    if (spec.kind != larql::attention_kind::compressed) return 0;
    constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max() / 2;
    return larql::compressed_cache_shape_of(spec, no_limit, 0).constant_bytes(assumed_bytes_per_number);
}

/// Of so many numbers; UINT64_MAX for what 64 bits do not hold.
std::uint64_t bytes_of(std::uint64_t numbers) {
    return numbers > UINT64_MAX / assumed_bytes_per_number ? UINT64_MAX : numbers * assumed_bytes_per_number;
}

ordered_json forms_json(const larql::checkpoint& model) {
    ordered_json forms = ordered_json::object();
    const larql::model_config& config = model.config();
    for (const larql::attention_form form :
         {larql::attention_form::factored, larql::attention_form::dense, larql::attention_form::latent}) {
        if (!model.supports(form)) continue;
        larql::attention_cost sum;
        std::uint64_t most_cached = 0, constant_bytes = 0;
        for (std::size_t block = config.block_begin; block < config.block_end; ++block) {
            const larql::attention_cost cost = larql::cost_of(config.blocks[block], form);
            sum += cost;
            most_cached = std::max(most_cached, cost.cached_per_token);
            constant_bytes += constant_cache_bytes(config.blocks[block]);
        }
        forms[std::string(larql::to_string(form))] = {{"weight_bytes", bytes_of(sum.weights)},
                                                      {"kv_cache_numbers_per_token_per_layer", most_cached},
                                                      {"kv_cache_bytes_per_token", bytes_of(sum.cached_per_token)},
                                                      {"flops_per_token", sum.flops_per_token},
                                                      {"flops_per_token_per_cached_token", sum.flops_per_cached_token}};
        if (constant_bytes != 0) forms[std::string(larql::to_string(form))]["kv_cache_constant_bytes"] = constant_bytes;
    }
    return forms;
}

ordered_json describe(const larql::checkpoint& model) {
    const larql::model_config* config = model.find_config();
    const auto or_null = [](std::string_view text) {
        return text.empty() ? ordered_json(nullptr) : ordered_json(text);
    };
    std::map<std::string, std::uint64_t> types;
    std::uint64_t bytes = 0;
    for (const larql::tensor_info& info : model.tensors()) {
        ++types[std::string(larql::to_string(info.type))];
        bytes += info.size_bytes;
    }
    ordered_json out;
    out["format"] = or_null(model.format());
    out["architecture"] = or_null(architecture_of(model));
    out["family"] = config != nullptr ? ordered_json(config->family) : ordered_json(nullptr);
    out["dialect"] = or_null(config != nullptr ? model.dialect() : "");
    out["shards"] = model.shard_count();
    out["tensors"] = model.tensors().size();
    out["tensor_bytes"] = bytes;
    out["number_formats"] = types;
    out["config"] = config != nullptr ? larql::program::config_json(*config) : ordered_json(nullptr);
    out["forms"] = config != nullptr ? forms_json(model) : ordered_json::object();
    if (config != nullptr && !config->container_loses.empty()) out["container_loses"] = config->container_loses;
    if (config != nullptr && !config->warnings.empty()) out["warnings"] = config->warnings;
    if (config == nullptr) out["problem"] = problem_of(model);
    return out;
}

using larql::program::byte_text;
using larql::program::flop_text;

std::string scalar_text(const ordered_json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_text(const ordered_json& d) {
    const auto line = [](const std::string& name, const std::string& value) {
        std::cout << name << std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') << value << '\n';
    };
    for (const char* key : {"format", "architecture", "family", "dialect", "shards"})
        line(key, d[key].is_null() ? "-" : larql::printable(scalar_text(d[key]), larql::max_printable_name));
    if (d["tensors"] == 0) {
        line("tensors", "none: a configuration without weights");
    } else {
        std::string types;
        for (const auto& [name, count] : d["number_formats"].items())
            types += (types.empty() ? "" : ", ") + count.dump() + " " + name;
        line("tensors", d["tensors"].dump() + " (" + types + "), " + byte_text(d["tensor_bytes"]));
    }
    if (d.contains("problem")) {
        line("model", "unknown: " + larql::printable(d["problem"].get<std::string>()));
        return;
    }
    for (const auto& [key, value] : d["config"].items()) {
        if (!value.is_object()) {
            line(key, value.is_null() ? "none" : scalar_text(value));
            continue;
        }
        for (const auto& [inner, inner_value] : value.items()) line(key + "." + inner, scalar_text(inner_value));
    }
    if (d.contains("container_loses"))
        line("note", "GGUF of this architecture cannot hold " + d["container_loses"].get<std::string>() +
                         "; if the model has one, state it with --config");
    std::cout << "\nform       weights (bf16)   cache/token/layer   cache/token (bf16)   FLOP/token   "
                 "FLOP/token/cached token\n";
    for (const auto& [form, cost] : d["forms"].items()) {
        char row[160];
        std::snprintf(row, sizeof row, "%-8s %16s %19s %20s %12s %25s\n", form.c_str(),
                      byte_text(cost["weight_bytes"]).c_str(),
                      (cost["kv_cache_numbers_per_token_per_layer"].dump() + " numbers").c_str(),
                      byte_text(cost["kv_cache_bytes_per_token"]).c_str(), flop_text(cost["flops_per_token"]).c_str(),
                      flop_text(cost["flops_per_token_per_cached_token"]).c_str());
        std::cout << row;
        if (cost.contains("kv_cache_constant_bytes"))
            std::cout << "         and at any length a cache of " << byte_text(cost["kv_cache_constant_bytes"])
                      << " for windows and open entries\n";
    }
    if (d.contains("plan")) larql::program::print_plan(d["plan"]);
}

void print(const ordered_json& description, const arguments& args, const larql::checkpoint& model) {
    if (args.json && args.tensors) return larql::program::print_with_tensors(description, model);
    if (args.json) {
        std::cout << description.dump(2, ' ', true, ordered_json::error_handler_t::replace) << '\n';
        return;
    }
    print_text(description);
    if (args.tensors) larql::program::print_tensors(model);
}

/// Rows [begin, end) of a weight as float; a dump is an explicit request, so integers are converted too.
void read_as_float(const larql::checkpoint& model, const larql::weight& weight, std::uint64_t begin, std::uint64_t end,
                   std::span<float> out) {
    const auto columns = static_cast<std::size_t>(weight.columns());
    if (larql::traits_of(weight.type()).kind != larql::dtype_kind::integer || weight.raw() == nullptr)
        return weight.read_rows(begin, end, out.data(), columns);
    const std::size_t row_bytes = columns * larql::traits_of(weight.type()).block_bytes;
    std::vector<std::byte> stored(static_cast<std::size_t>(end - begin) * row_bytes);
    if (model.gguf() != nullptr)
        model.gguf()->read_bytes(*weight.raw(), begin * row_bytes, stored);
    else
        model.safetensors()->read_bytes(*weight.raw(), begin * row_bytes, stored);
    larql::dequantize_integers(weight.type(), stored, out);
}

void dump(const larql::checkpoint& model, const arguments& args) {
    std::vector<larql::weight> weights;
    const std::vector<std::string> names = args.names.empty() ? model.weights().names() : args.names;
    auto writer = larql::program::open_output(args.dump, program_name, args.force, model, {args.reading.config});
    for (const std::string& name : names) {
        weights.push_back(model.weights().at(name));
        writer.add_tensor(name, larql::dtype::f32, {weights.back().shape().begin(), weights.back().shape().end()});
    }
    larql::program::progress_bar progress("dumping", false);
    std::vector<float> buffer;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const std::uint64_t columns = std::max<std::uint64_t>(weights[i].columns(), 1);
        const std::uint64_t step = std::max<std::uint64_t>((std::uint64_t{4} << 20) / columns, 1);
        for (std::uint64_t row = 0; row < weights[i].rows(); row += step) {
            const std::uint64_t end = std::min(weights[i].rows(), row + step);
            buffer.resize(static_cast<std::size_t>((end - row) * weights[i].columns()));
            read_as_float(model, weights[i], row, end, buffer);
            writer.write(weights[i].name(), std::as_bytes(std::span(buffer)));
        }
        progress.show(i + 1, weights.size());
    }
    writer.commit();
}

/// A model that larql does not implement can be looked at; anything else that is wrong with a configuration is an
/// error, and so is a configuration without tensors that says nothing to larql.
void require_understood(const larql::checkpoint& model) {
    std::cout.flush();
    try {
        (void)model.config();
    } catch (const larql::error& e) {
        if (e.code() != larql::errc::unsupported_architecture || model.format().empty()) throw;
    }
}

}  // namespace

int main(int argc, char** argv) {
    arguments args;
    CLI::App app("Says what a checkpoint is and what its attention costs in each form.", program_name);
    app.add_option("PATH", args.path, "a .gguf file (any shard), a .safetensors file or index, or a model folder")
        ->required();
    app.add_flag("--json", args.json, "machine-readable output");
    app.add_flag("--tensors", args.tensors, "list the tensors");
    auto* dump_option =
        app.add_option("--dump", args.dump, "write tensors, dequantised to float32, to this safetensors file");
    app.add_flag("--force", args.force, "with --dump: replace a file that larql-inspect did not make")
        ->needs(dump_option);
    app.add_option("--names", args.names, "with --dump: only these tensors, separated by commas")
        ->delimiter(',')
        ->needs(dump_option);
    app.add_option("--plan", args.plan,
                   "what attention costs in each form at this many tokens, and what is cheapest where")
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 32));
    args.reading.add_to(app);
    return larql::program::run(app, argc, argv, [&] {
        const larql::checkpoint model = args.reading.open(args.path);
        if (!args.dump.empty()) return dump(model, args);
        ordered_json description = describe(model);
        if (args.plan != 0 && model.find_config() != nullptr)
            description["plan"] = larql::program::plan_json(model, args.plan);
        print(description, args, model);
        require_understood(model);
    });
}
