// SPDX-License-Identifier: Apache-2.0
//
// How every case is timed: the least of several calls. Other programs on the machine can only add time, and the peers
// are timed the same way.
#ifndef LARQL_BENCHMARKS_LEAST_TIME_HPP
#define LARQL_BENCHMARKS_LEAST_TIME_HPP

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

namespace larql::benchmarks {

/// Calls for 0.3 seconds and at least five times, but no longer than two seconds, and reports the least time of a call.
template <class Call>
void time_least(benchmark::State& state, Call&& call) {
    using seconds = std::chrono::duration<double>;
    for (auto _ : state) {  // once
        double least = std::numeric_limits<double>::infinity(), total = 0.0;
        for (int calls = 0; total < 2.0 && (calls < 5 || total < 0.3); ++calls) {
            const auto begin = std::chrono::steady_clock::now();
            call();
            benchmark::ClobberMemory();
            const double taken = seconds(std::chrono::steady_clock::now() - begin).count();
            least = std::min(least, taken);
            total += taken;
        }
        state.SetIterationTime(least);
    }
}

/// Adds a case whose function calls time_least.
template <class Function, class... Arguments>
void add_case(const std::string& name, Function&& function, Arguments&&... arguments) {
    benchmark::RegisterBenchmark(name.c_str(), std::forward<Function>(function), std::forward<Arguments>(arguments)...)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace larql::benchmarks

#endif
