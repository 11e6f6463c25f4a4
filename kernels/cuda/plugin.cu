/* plugin.cu - the one function that libnibble_cuda.so shows. */
extern "C" {
#include "kernels/cuda/plugin.h"
}

#include "kernels/cuda/device.h"

extern "C" __attribute__((visibility("default"))) const nb_cuda_plugin *nb_cuda_plugin_open(void);
extern "C" __attribute__((visibility("default"))) const nb_cuda_plugin *nb_cuda_plugin_open(void)
{
    static const nb_cuda_plugin plugin = { NB_CUDA_ABI, sizeof(nb_ops), sizeof(nb_matrix), sizeof(nb_error),
                                           nb_cuda_state_new, nb_cuda_state_free, nb_cuda_devices };
    return &plugin;
}
