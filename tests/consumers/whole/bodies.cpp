// SPDX-License-Identifier: Apache-2.0
#include <larql/src.hpp>
