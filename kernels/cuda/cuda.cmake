# CUDA kernels: library ds_cuda, wherever nvcc is found (CUDACXX, PATH, or the usual place).
find_program(DS_NVCC nvcc HINTS ENV CUDACXX /usr/local/cuda/bin)
if(NOT DS_NVCC)
  message(FATAL_ERROR "DS_CUDA=ON needs nvcc, which was not found")
endif()
set(CMAKE_CUDA_COMPILER ${DS_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 80 90)  # A100, H100
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB DS_CUDA_SOURCES CONFIGURE_DEPENDS kernels/cuda/*.cu)
add_library(ds_cuda STATIC ${DS_CUDA_SOURCES})
set_target_properties(ds_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
target_include_directories(ds_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(ds_cuda PUBLIC CUDA::cudart_static)
