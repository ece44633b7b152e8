// SPDX-License-Identifier: Apache-2.0
//
// From config.json to what attention computes and costs: the configurations of tests/data with keys changed, or any
// text. Whatever is accepted is finite and in range, all the way down.
#include <larql/attention_cost.hpp>
#include <larql/attention_plan.hpp>
#include <larql/error.hpp>
#include <larql/model_config.hpp>
#include <larql/quantization_config.hpp>
#include <larql/rope.hpp>
#include <support/files.hpp>

#include "attempt.hpp"
#include "byte_source.hpp"
#include "checked_spec.hpp"
#include "damaged_json.hpp"
#include "replay.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using namespace larql;
using namespace larql::testing;

/// Every configuration in tests/data, parsed.
const std::vector<nlohmann::json>& bases() {
    static const std::vector<nlohmann::json> found = [] {
        std::vector<nlohmann::json> out;
        for (const char* name : {"config.json", "params.json"})
            for (const std::filesystem::path& folder : cases_with(name))
                out.push_back(nlohmann::json::parse(read_file(folder / name)));
        return out;
    }();
    return found;
}

void check_plan(const model_config& model) {
    constexpr std::uint64_t contexts[] = {1, 4096, std::uint64_t{1} << 32};
    for (const attention_form form : {attention_form::factored, attention_form::dense, attention_form::latent}) {
        std::vector<planned_block> blocks;
        for (std::size_t i = 0; i < std::min<std::size_t>(model.blocks.size(), 4); ++i)
            if (why_not(model.blocks[i], form).empty())
                blocks.push_back({&model.blocks[i], cost_of(model.blocks[i], form).weights});
        for (const std::uint64_t context : contexts) attempt([&] { (void)plan_form(blocks, form, context); });
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    byte_source from(data, size);
    std::string text;
    unknown_policy unknown = unknown_policy::refuse;
    if (from.one_in(4)) {
        text = from.rest();
    } else {
        nlohmann::json config = from.pick(bases());
        if (from.one_in(2)) unknown = unknown_policy::ignore;
        for (std::size_t n = from.size(0, 4); n != 0; --n) damage_object(from, config);
        text = text_of(config);
    }
    attempt([&] {
        const nlohmann::json config = parse_config_json(text, {.file = "config.json"});
        attempt([&] { quantization_config::find_in(config, {.file = "config.json"}).require_supported({}); });
        const model_config model = parse_model_config(config, {.file = "config.json"}, {.unknown = unknown});
        check_model(model);
        check_plan(model);
    });
    return 0;
}
