// SPDX-License-Identifier: Apache-2.0
//
// JSON texts as values, of limited depth.
#ifndef LARQL_DETAIL_IO_JSON_HPP
#define LARQL_DETAIL_IO_JSON_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/json_text.hpp>
#include <larql/error.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// What parse_json accepts.
struct json_limits {
    std::size_t max_depth = 64;        ///< containers within each other, the outermost included
    bool drop_deeper = false;          ///< deeper containers become null; otherwise they are an error
    bool tolerate_non_finite = false;  ///< bare NaN, Infinity and -Infinity become the strings "NaN" and so on
};

/// Builds a value from events.
class json_builder final : public json_consumer {
public:
    explicit json_builder(const json_limits& limits) : m_limits(limits) {}

    void open(bool object) override {
        if (m_dropped > 0 || m_open.size() >= m_limits.max_depth) {
            if (!m_limits.drop_deeper)
                fail_here(errc::limit_exceeded, concat({"nested too deep: expected at most ", m_limits.max_depth,
                                                        " levels, got ", m_open.size() + 1}));
            if (m_dropped++ == 0) place(nullptr);
            return;
        }
        m_open.push_back(place(object ? nlohmann::json::object() : nlohmann::json::array()));
    }
    void close() override {
        if (m_dropped > 0)
            --m_dropped;
        else
            m_open.pop_back();
    }
    void key(std::string_view name) override {
        if (m_dropped == 0) m_slot = &m_open.back()->get_ref<nlohmann::json::object_t&>()[std::string(name)];
    }
    void scalar(const json_scalar& value) override {
        if (m_dropped == 0) place(to_json(value));
    }

    nlohmann::json take() { return std::move(m_root); }

private:
    nlohmann::json* place(nlohmann::json value) {
        nlohmann::json* slot = &m_root;
        if (!m_open.empty()) {
            nlohmann::json& parent = *m_open.back();
            if (parent.is_array()) {
                parent.push_back(nullptr);
                slot = &parent.back();
            } else {
                slot = m_slot;
            }
        }
        *slot = std::move(value);
        return slot;
    }

    json_limits m_limits;
    nlohmann::json m_root{};
    std::vector<nlohmann::json*> m_open{};  // stable: only the innermost container grows
    nlohmann::json* m_slot = nullptr;
    std::size_t m_dropped = 0;
};

/// Parses one JSON text, strictly: UTF-8, the grammar, no duplicate key, nothing but white space after the value. A
/// byte order mark in front is skipped. Does not recurse.
///
/// @param where  file and, if known, offset of the text's first byte, for errors
/// @throws error corrupt_header, duplicate_name, or limit_exceeded for a value nested deeper than the limits allow
inline nlohmann::json parse_json(std::string_view text, const error_where& where, const json_limits& limits = {}) {
    json_builder builder(limits);
    builder.read(text, where, limits.tolerate_non_finite);
    return builder.take();
}

}  // namespace larql::detail

#endif
