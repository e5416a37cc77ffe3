"""The operators a recorded program may use: pure functions of tensors and sizes, and nothing else.

A program comes from a file that anyone may have written, so each operator is looked up by its full name in
this table; no name in a file ever reaches `getattr`. No operator here writes to its arguments, draws random
numbers, reads uninitialised memory, or touches files (a test goes through the schemas). Those that do so in
training mode only (dropout, batch statistics, recurrent layers with dropout) are refused by `guard` unless
they are in eval mode.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tscope_format.errors import TraceError, clean

# "name" is aten.name.default, "name:a,b" are aten.name.a and aten.name.b.
_ATEN = """
# Elementwise
abs acos acosh add:Scalar,Tensor addcdiv addcmul asin asinh atan atan2 atanh
bitwise_and:Scalar,Scalar_Tensor,Tensor bitwise_not bitwise_or:Scalar,Scalar_Tensor,Tensor
bitwise_xor:Scalar,Scalar_Tensor,Tensor ceil celu clamp:Tensor,default clamp_max:Tensor,default
clamp_min:Tensor,default clip:Tensor,default copysign:Scalar,Tensor cos cosh deg2rad digamma
div:Scalar,Scalar_mode,Tensor,Tensor_mode divide:Scalar,Scalar_mode,Tensor,Tensor_mode elu
eq:Scalar,Tensor erf erfc erfinv exp exp2 expm1 fill:Scalar,Tensor
float_power:Scalar,Tensor_Scalar,Tensor_Tensor floor floor_divide:Scalar,default fmax fmin
fmod:Scalar,Tensor frac ge:Scalar,Tensor gelu glu greater:Scalar,Tensor greater_equal:Scalar,Tensor
gt:Scalar,Tensor hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 isclose isfinite isinf
isnan le:Scalar,Tensor leaky_relu lerp:Scalar,Tensor less:Scalar,Tensor less_equal:Scalar,Tensor
lgamma log log10 log1p log2 log_sigmoid log_sigmoid_forward logaddexp logaddexp2 logical_and
logical_not logical_or logical_xor logit lt:Scalar,Tensor masked_fill:Scalar,Tensor maximum minimum
mish mul:Scalar,Tensor multiply:Scalar,Tensor nan_to_num ne:Scalar,Tensor neg negative
not_equal:Scalar,Tensor pow:Scalar,Tensor_Scalar,Tensor_Tensor prelu rad2deg reciprocal relu relu6
remainder:Scalar,Scalar_Tensor,Tensor round:decimals,default rrelu rsqrt rsub:Scalar,Tensor selu sgn
sigmoid sign silu sin sinc sinh softplus softshrink special_entr special_erfcx special_i0e
special_i1 special_i1e special_log_ndtr special_ndtr
special_xlog1py:default,other_scalar,self_scalar sqrt square sub:Scalar,Tensor
subtract:Scalar,Tensor tan tanh threshold true_divide:Scalar,Tensor trunc
where:Scalar,ScalarOther,ScalarSelf,self xlogy:Scalar_Other,Scalar_Self,Tensor
# Matrices
_weight_norm addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cosine_similarity cross
det diag diag_embed diagonal dot einsum inner inverse kron linalg_cholesky linalg_cholesky_ex
linalg_cross linalg_det linalg_diagonal linalg_eigh linalg_householder_product linalg_inv
linalg_inv_ex linalg_matmul linalg_matrix_exp linalg_matrix_norm:default,str_ord linalg_matrix_power
linalg_multi_dot linalg_norm:default,ord_str
linalg_pinv:atol_rtol_float,atol_rtol_tensor,default,rcond_tensor linalg_qr linalg_slogdet
linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd linalg_vecdot linalg_vector_norm
linear logdet matmul matrix_exp matrix_power mm mv
norm:Scalar,ScalarOpt_dim,ScalarOpt_dim_dtype,ScalarOpt_dtype norm_except_dim outer
pairwise_distance slogdet tensordot trace tril tril_indices triu triu_indices vdot
# Reductions
_log_softmax _safe_softmax _softmax all:default,dim,dims amax amin aminmax any:default,dim,dims
argmax argmin argsort:default,stable count_nonzero:default,dim_IntList cummax cummin cumprod cumsum
kthvalue log_softmax:int logcumsumexp logsumexp max:default,dim,other mean:default,dim
median:default,dim min:default,dim,other nanmean nansum prod:default,dim_int softmax:int
sort:default,stable std:correction,default,dim std_mean:correction,default,dim
sum:default,dim_IntList sum_to_size topk var:correction,default,dim var_mean:correction,default,dim
# Layers
_adaptive_avg_pool2d _adaptive_avg_pool3d _embedding_bag _embedding_bag_forward_only _fused_rms_norm
_native_batch_norm_legit:no_stats _native_batch_norm_legit_no_training
_scaled_dot_product_attention_math _upsample_bicubic2d_aa:default,vec
_upsample_bilinear2d_aa:default,vec _upsample_nearest_exact1d:default,vec
_upsample_nearest_exact2d:default,vec _upsample_nearest_exact3d:default,vec adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm channel_shuffle
col2im conv1d:default,padding conv2d:default,padding conv3d:default,padding conv_transpose1d
conv_transpose2d:input conv_transpose3d:input convolution dropout embedding
embedding_bag:default,padding_idx feature_alpha_dropout feature_dropout grid_sampler grid_sampler_2d
grid_sampler_3d group_norm gru:input gru_cell im2col instance_norm layer_norm lstm:input lstm_cell
max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
max_pool3d_with_indices max_unpool2d max_unpool3d native_batch_norm native_channel_shuffle
native_dropout native_group_norm native_layer_norm pixel_shuffle pixel_unshuffle rms_norm
rnn_relu:input rnn_relu_cell rnn_tanh:input rnn_tanh_cell scaled_dot_product_attention
upsample_bicubic2d:default,vec upsample_bilinear2d:default,vec upsample_linear1d:default,vec
upsample_nearest1d:default,vec upsample_nearest2d:default,vec upsample_nearest3d:default,vec
upsample_trilinear3d:default,vec
# Losses
binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy_loss
huber_loss kl_div l1_loss mse_loss nll_loss nll_loss2d nll_loss2d_forward nll_loss_forward
nll_loss_nd smooth_l1_loss soft_margin_loss
# Shapes and views
_reshape_alias _to_copy _unsafe_index:Tensor _unsafe_index_put _unsafe_view adjoint alias alias_copy
atleast_1d:Sequence,default atleast_2d:Sequence,default atleast_3d:Sequence,default block_diag
broadcast_tensors broadcast_to bucketize:Scalar,Tensor cartesian_prod cat chunk clone column_stack
concat concatenate constant_pad_nd contiguous copy detach detach_copy diagonal_copy diagonal_scatter
diff dsplit:array,int dstack expand expand_as expand_copy flatten:using_ints flip fliplr flipud
gather hsplit:array,int hstack index:Tensor index_add index_fill:int_Scalar,int_Tensor index_put
index_reduce index_select isin:Scalar_Tensor,Tensor_Scalar,Tensor_Tensor lift_fresh lift_fresh_copy
mH mT masked_scatter matrix_H meshgrid:default,indexing moveaxis:int,intlist movedim:int,intlist
narrow:Tensor,default numpy_T pad permute permute_copy ravel reflection_pad1d reflection_pad2d
reflection_pad3d repeat repeat_interleave:Tensor,self_Tensor,self_int replication_pad1d
replication_pad2d replication_pad3d reshape reshape_as roll rot90
scatter:reduce,src,value,value_reduce scatter_add scatter_reduce:two searchsorted:Scalar,Tensor
select:int select_copy:int select_scatter slice:Tensor slice_copy:Tensor slice_scatter
split:Tensor,sizes split_copy:Tensor split_with_sizes split_with_sizes_copy squeeze:default,dim,dims
squeeze_copy:default,dim,dims stack swapaxes swapdims t t_copy take take_along_dim
tensor_split:indices,sections,tensor_indices_or_sections tile to:device,dtype,dtype_layout,other
transpose:int transpose_copy:int type_as unbind:int unbind_copy:int unflatten:int unfold unsafe_chunk
unsafe_split:Tensor unsafe_split_with_sizes unsqueeze unsqueeze_copy view:default,dtype view_as
view_copy:default,dtype vsplit:array,int vstack
# Factories
arange:default,start,start_step eye:default,m full full_like hann_window:default,periodic
linspace:Scalar_Tensor,Tensor_Scalar,Tensor_Tensor,default
logspace:Scalar_Tensor,Tensor_Scalar,Tensor_Tensor,default new_full new_ones new_zeros one_hot ones
ones_like scalar_tensor zeros zeros_like
# Fourier and complex
angle complex conj conj_physical fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft
fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft
fft_rfft2 fft_rfftfreq fft_rfftn imag istft polar real resolve_conj resolve_neg stft:center,default
view_as_complex view_as_real
# Sizes
numel size:int sym_numel sym_size:int sym_storage_offset sym_stride:int
"""

_ARITHMETIC = "add sub mul floordiv mod truediv neg pos abs eq ne lt le gt ge and_ or_ not_"
# Arithmetic on sizes. No pow: `2 ** 10 ** 10` never ends.
SIZES: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _ARITHMETIC.split(" ")},
    **{f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "trunc")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_int", "sym_float", "sym_not", "sym_ite", "sym_sum")
    },
}
GETITEM = "operator.getitem"


def _names() -> frozenset[str]:
    lines = (line for line in _ATEN.splitlines() if not line.startswith("#"))
    names: set[str] = set()
    for entry in " ".join(lines).split():
        packet, _, overloads = entry.partition(":")
        names.update(f"aten.{packet}.{overload}" for overload in (overloads or "default").split(","))
    return frozenset(names)


ATEN = _names()


@functools.cache
def operator_named(target: str) -> torch._ops.OpOverload:
    """Return the aten operator of an allowed name.

    Raises:
        TraceError: if the name is not in the table, or this torch does not have it.
    """
    if target not in ATEN:
        raise TraceError(f"program: the operator {clean(target)[:100]!r} is not allowed in a recorded model")
    _, packet, overload = target.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise TraceError(f"program: torch {torch.__version__} has no {target}; use the torch of the run")
    return found


def guard(target: str, arguments: Mapping[str, Any]) -> None:
    """Refuse operators that are pure in eval mode only, when they are not in eval mode.

    Args:
        target: name of the operator.
        arguments: its arguments by the schema's names, defaults included.

    Raises:
        TraceError: for dropout in training mode, and for normalisation that would update its statistics.
    """
    training = arguments.get("train", arguments.get("training", arguments.get("use_input_stats", False)))
    if "running_mean" in arguments:
        if training is not False and arguments["running_mean"] is not None:
            raise TraceError(f"program: {target} would update its statistics; only eval mode is allowed")
        return
    if "dropout_p" in arguments:  # attention has no flag: its probability is zero in eval mode
        random = arguments["dropout_p"] != 0
    else:
        probability = arguments.get("p", arguments.get("dropout")) if training is not False else 0
        random = training is not False and probability != 0
    if random:
        raise TraceError(f"program: {target} draws random numbers; only eval mode is allowed")
