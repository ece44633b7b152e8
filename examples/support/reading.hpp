// SPDX-License-Identifier: Apache-2.0
//
// The options with which every program reads a checkpoint: a configuration that goes before the files', and what to do
// with what larql does not understand.
#ifndef LARQL_EXAMPLES_SUPPORT_READING_HPP
#define LARQL_EXAMPLES_SUPPORT_READING_HPP

#include <larql/checkpoint.hpp>
#include <larql/printable.hpp>

#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include <iostream>
#include <string>

namespace larql::program {

struct reading {
    std::string config;
    std::string unknown = "refuse";

    void add_to(CLI::App& app) {
        app.add_option("--config", config, "a config.json, or a part of one, that goes before what the files say");
        app.add_option("--unknown", unknown,
                       "refuse (default) or ignore: keys and tensors of attention that larql does not understand")
            ->check(CLI::IsMember({"refuse", "ignore"}));
    }

    /// Opens a checkpoint; warnings go to standard error, a line each.
    [[nodiscard]] checkpoint open(const std::string& path) const {
        open_options options;
        if (!config.empty()) options.config = read_config_json(config);
        if (unknown == "ignore") options.unknown = unknown_policy::ignore;
        checkpoint opened = checkpoint::open(path, options);
        if (const model_config* model = opened.find_config())
            for (const std::string& warning : model->warnings)
                std::cerr << "warning: ignored: " << printable(warning) << '\n';
        return opened;
    }
};

}  // namespace larql::program

#endif
