// SPDX-License-Identifier: Apache-2.0
//
// The bodies of convert.hpp.
#ifndef LARQL_DETAIL_BODIES_CONVERT_HPP
#define LARQL_DETAIL_BODIES_CONVERT_HPP

#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/convert.hpp>
#include <larql/detail/convert/measure.hpp>
#include <larql/detail/convert/planned_conversion.hpp>
#include <larql/detail/separate.hpp>
#include <larql/executor.hpp>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace larql {

LARQL_INLINE conversion::conversion(checkpoint source, const std::filesystem::path& target, conversion_options options)
    : m_planned(std::make_unique<detail::planned_conversion>(std::move(source), target, std::move(options))) {}
LARQL_INLINE conversion::~conversion() = default;

LARQL_INLINE std::vector<conversion::file> conversion::files() const { return m_planned->files(); }
LARQL_INLINE std::size_t conversion::rows() const noexcept { return m_planned->plan.rows.size(); }
LARQL_INLINE const std::vector<std::string>& conversion::warnings() const noexcept { return m_planned->plan.warnings; }
LARQL_INLINE const std::filesystem::path& conversion::folder() const noexcept { return m_planned->target.folder; }
LARQL_INLINE void conversion::run() { m_planned->run(); }

LARQL_INLINE double conversion::measure(double seconds) const {
    serial_executor serial;
    executor* const threads = m_planned->options.threads;
    return detail::measure_rate(m_planned->plan.rows, threads != nullptr ? *threads : serial, seconds);
}

LARQL_INLINE nlohmann::json converted_config(const checkpoint& source, const conversion_options& options) {
    return detail::planned_conversion(source, "unnamed", options).config();
}

LARQL_INLINE void convert_to_safetensors(const checkpoint& source, const std::filesystem::path& folder,
                                         conversion_options options) {
    options.to = container::safetensors;
    conversion(source, folder, std::move(options)).run();
}

}  // namespace larql

#endif
