// SPDX-License-Identifier: Apache-2.0
//
// Copies of test cases that differ in a few keys or tensors.
#ifndef LARQL_TESTS_SUPPORT_CHANGED_CASE_HPP
#define LARQL_TESTS_SUPPORT_CHANGED_CASE_HPP

#include <larql/checkpoint.hpp>
#include <larql/safetensors_writer.hpp>

#include <nlohmann/json.hpp>
#include <support/files.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace larql::testing {

/// A copy of a case under tests/data/hf with other keys in its configuration, more tensors, all like one of its
/// vectors, and without those whose names end so; or with those whose names end so cut to smaller shapes.
/// @return  the folder `out`
inline std::filesystem::path changed_case(
    const std::string& name, const std::filesystem::path& out, const std::function<void(nlohmann::json&)>& change,
    const std::vector<std::string>& more = {}, const std::string& dropped = "",
    const std::vector<std::pair<std::string, std::vector<std::uint64_t>>>& cut = {}) {
    const checkpoint model = checkpoint::open(std::string(LARQL_TEST_DATA) + "/hf/" + name);
    nlohmann::json config = model.config_json();
    change(config);
    std::filesystem::create_directories(out);
    write_file(out / "config.json", config.dump());
    safetensors_writer writer(out / "model.safetensors");
    const tensor_info& like =
        *std::ranges::find_if(model.tensors(), [](const tensor_info& info) { return info.shape.size() == 1; });
    const auto kept = [&](const tensor_info& info) { return dropped.empty() || !info.name.ends_with(dropped); };
    const auto shape_of = [&](const tensor_info& info) {
        const auto found = std::ranges::find_if(cut, [&](const auto& c) { return info.name.ends_with(c.first); });
        return found == cut.end() ? info.shape : found->second;
    };
    for (const tensor_info& info : model.tensors())
        if (kept(info)) writer.add_tensor(info.name, info.type, shape_of(info));
    for (const std::string& one : more) writer.add_tensor(one, like.type, like.shape);
    for (const tensor_info& info : model.tensors()) {
        if (!kept(info)) continue;
        std::uint64_t elements = 1;
        for (const std::uint64_t extent : shape_of(info)) elements *= extent;
        writer.write(info.name, model.bytes(info).first(elements * info.size_bytes / info.element_count()));
    }
    for (const std::string& one : more) writer.write(one, model.bytes(like));
    writer.commit();
    return out;
}

}  // namespace larql::testing

#endif
