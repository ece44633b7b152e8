// SPDX-License-Identifier: Apache-2.0
//
// What config.json states of layers that larql does not compute, in GGUF's keys.
#ifndef LARQL_DETAIL_CONVERT_GGUF_CARRIED_VALUES_HPP
#define LARQL_DETAIL_CONVERT_GGUF_CARRIED_VALUES_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/gguf/metadata.hpp>
#include <larql/detail/model/json_value.hpp>
#include <larql/detail/model/json_wrapper.hpp>
#include <larql/detail/model/keys.hpp>
#include <larql/detail/model/values.hpp>
#include <larql/error.hpp>
#include <larql/model_family.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace larql::detail {

/// Walks a family's carried values (gguf_output_rule::carried) towards GGUF.
class gguf_carried_values {
public:
    /// @param top     what the configuration states of the model as a whole
    /// @param blocks  of the file, for what is stated of each
    gguf_carried_values(const checkpoint& source, const key_values& top, std::size_t blocks, gguf_metadata& out)
        : m_source(source), m_top(top), m_blocks(blocks), m_out(out) {}

    /// @throws error errc::missing_key, bad_value, or unsupported_architecture where GGUF has one key for two values
    void state() {
        const std::span<const carried_value> rows = m_source.family().gguf_output.carried;
        if (rows.empty()) return;
        const nlohmann::json config = m_source.config_json();
        const nlohmann::json& text = *find_text_part(config).object;
        for (const carried_value& carried : rows) {
            const nlohmann::json* stated = find_member(text, carried.another);
            if (stated == nullptr) stated = find_member(text, carried.name);
            const bool may_be_absent =
                carried.kind == carried_kind::of_layers || carried.kind == carried_kind::repeated;
            if (!may_be_absent)
                state_one(carried, stated);
            else if (stated != nullptr && !stated->is_null())
                carried.kind == carried_kind::repeated ? state_repeated(carried, *stated)
                                                       : state_of_layers(carried, *stated);
        }
    }

private:
    [[noreturn]] void refuse(const carried_value& carried, errc code, const std::string& problem) const {
        fail(code, problem, {.file = m_source.shard_path(0), .subject = std::string(carried.name)});
    }
    void state_one(const carried_value& carried, const nlohmann::json* stated) {
        if (stated == nullptr) refuse(carried, errc::missing_key, "required to describe the layers, and absent");
        if (carried.kind == carried_kind::flag) {
            if (!stated->is_boolean())
                refuse(carried, errc::bad_value, "expected true or false, got " + stated->dump());
            return set(carried.gguf, stated->get<bool>());
        }
        if (carried.kind == carried_kind::number) return set(carried.gguf, number_of(carried, *stated));
        if (!stated->is_number_unsigned() || stated->get<std::uint64_t>() > UINT32_MAX)
            refuse(carried, errc::bad_value, "expected a size, got " + stated->dump());
        const auto row = std::ranges::find(top_keys, carried.gguf, [](const key_row& r) { return r.gguf.front(); });
        if (row == std::end(top_keys))
            set(carried.gguf, stated->get<std::uint32_t>());
        else if (m_top.size(row->key) != stated->get<std::uint64_t>())
            refuse(carried, errc::unsupported_architecture,
                   concat({"GGUF has one number for it and for ", row->hf.front(), ", ", m_top.size(row->key), ", got ",
                           stated->dump()}));
    }
    [[nodiscard]] float number_of(const carried_value& carried, const nlohmann::json& stated) const {
        if (!stated.is_number()) refuse(carried, errc::bad_value, "expected a number, got " + stated.dump());
        return stated.get<float>();
    }
    void state_repeated(const carried_value& carried, const nlohmann::json& stated) {
        set(carried.gguf, std::vector<float>(m_blocks, number_of(carried, stated)));
    }
    void state_of_layers(const carried_value& carried, const nlohmann::json& stated) {
        std::vector<float> numbers;
        for (const nlohmann::json& one : stated) {
            if (!one.is_null() && !one.is_number())
                refuse(carried, errc::bad_value, "expected numbers, got " + one.dump());
            numbers.push_back(one.is_null() ? 0.0F : one.get<float>());
        }
        numbers.resize(m_blocks);
        set(carried.gguf, numbers);
    }
    template <class T>
    void set(std::string_view key, const T& value) {
        m_out.set(std::string(m_source.family().gguf_architecture) + "." + std::string(key), value);
    }

    const checkpoint& m_source;
    const key_values& m_top;
    std::size_t m_blocks;
    gguf_metadata& m_out;
};

}  // namespace larql::detail

#endif
