"""Released configurations, cut to the keys that sizes and router need, and what is right of each.

Facts transcribed from the files that lie beside the weights (and, for some, remembered from them); totals as their
authors state them, or the sum of all weights where the name is rounded further than that.
"""

from typing import NamedTuple


class Right(NamedTuple):
    """What a configuration says: parameters in billions; ``groups`` as the number and the limit."""

    total: float
    moe_layers: int
    n_experts: int
    shared_width: int
    kind: str
    score: str
    top_k: int
    normalize: bool
    scale: float
    groups: str
    attention: str


# fmt: off
RELEASED = {
    "mixtral-8x7b": ({"architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
     "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
     "num_key_value_heads": 8, "num_local_experts": 8, "vocab_size": 32000}, (46.7, 32, 8, 0, "v1", "softmax", 2,
     True, 1.0, "1/1", "gqa")),
    "qwen3-235b-a22b": ({"architectures": ["Qwen3MoeForCausalLM"], "head_dim": 128, "hidden_size": 4096, "model_type":
     "qwen3_moe", "moe_intermediate_size": 1536, "norm_topk_prob": True, "num_attention_heads": 64, "num_experts":
     128, "num_experts_per_tok": 8, "num_hidden_layers": 94, "num_key_value_heads": 4, "vocab_size": 151936}, (235.0,
     94, 128, 0, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "qwen3-vl-30b-a3b": ({"architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe",
     "text_config": {"head_dim": 128, "hidden_size": 2048, "model_type": "qwen3_vl_moe_text", "moe_intermediate_size":
     768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
     "num_hidden_layers": 48, "num_key_value_heads": 4, "vocab_size": 151936}}, (30.5, 48, 128, 0, "v1", "softmax", 8,
     True, 1.0, "1/1", "gqa")),
    "qwen3.5-35b-a3b": ({"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe",
     "text_config": {"head_dim": 256, "hidden_size": 2048, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
     "linear_num_value_heads": 32, "linear_value_head_dim": 128, "model_type": "qwen3_5_moe_text",
     "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts": 256, "num_experts_per_tok": 8,
     "num_hidden_layers": 40, "num_key_value_heads": 2, "shared_expert_intermediate_size": 512, "vocab_size":
     248320}}, (35.0, 40, 256, 512, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "qwen3-next-80b-a3b": ({"architectures": ["Qwen3NextForCausalLM"], "head_dim": 256, "hidden_size": 2048,
     "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim":
     128, "model_type": "qwen3_next", "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts": 512,
     "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2, "shared_expert_intermediate_size":
     512, "vocab_size": 151936}, (80.0, 48, 512, 512, "v1", "softmax", 10, True, 1.0, "1/1", "gqa")),
    "qwen2-57b-a14b": ({"architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 3584, "model_type": "qwen2_moe",
     "moe_intermediate_size": 2560, "num_attention_heads": 28, "num_experts": 64, "num_experts_per_tok": 8,
     "num_hidden_layers": 28, "num_key_value_heads": 4, "shared_expert_intermediate_size": 20480, "vocab_size":
     151936}, (57.4, 28, 64, 20480, "v1", "softmax", 8, False, 1.0, "1/1", "gqa")),
    "qwen1.5-moe-a2.7b": ({"architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 2048, "model_type": "qwen2_moe",
     "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
     "num_hidden_layers": 24, "shared_expert_intermediate_size": 5632, "vocab_size": 151936}, (14.3, 24, 60, 5632,
     "v1", "softmax", 4, False, 1.0, "1/1", "mha")),
    "deepseek-moe-16b": ({"architectures": ["DeepseekForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 2048,
     "intermediate_size": 10944, "model_type": "deepseek", "moe_intermediate_size": 1408, "n_routed_experts": 64,
     "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
     "vocab_size": 102400}, (16.4, 27, 64, 2816, "v1", "softmax", 6, False, 1.0, "1/1", "mha")),
    "deepseek-v2-lite": ({"architectures": ["DeepseekV2ForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 2048,
     "intermediate_size": 10944, "kv_lora_rank": 512, "model_type": "deepseek_v2", "moe_intermediate_size": 1408,
     "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6,
     "num_hidden_layers": 27, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size":
     102400}, (15.71, 26, 64, 2816, "v1", "softmax", 6, False, 1.0, "1/1", "mla")),
    "deepseek-v2": ({"first_k_dense_replace": 1, "hidden_size": 5120, "kv_lora_rank": 512, "model_type":
     "deepseek_v2", "moe_intermediate_size": 1536, "n_group": 8, "n_routed_experts": 160, "n_shared_experts": 2,
     "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60, "q_lora_rank": 1536,
     "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "routed_scaling_factor": 16.0, "topk_group": 3, "v_head_dim":
     128, "vocab_size": 102400}, (236.0, 59, 160, 3072, "v2", "softmax", 6, False, 16.0, "8/3", "mla")),
    "deepseek-v3": ({"architectures": ["DeepseekV3ForCausalLM"], "first_k_dense_replace": 3, "hidden_size": 7168,
     "kv_lora_rank": 512, "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "n_routed_experts": 256,
     "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
     "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "routed_scaling_factor": 2.5, "v_head_dim":
     128, "vocab_size": 129280}, (671.0, 58, 256, 2048, "v3", "sigmoid", 8, True, 2.5, "8/4", "mla")),
    "deepseek-v4-flash": ({"architectures": ["DeepseekV4ForCausalLM"], "head_dim": 512, "hidden_size": 4096,
     "index_head_dim": 128, "index_n_heads": 64, "index_topk": 512, "model_type": "deepseek_v4",
     "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 64,
     "num_experts_per_tok": 6, "num_hidden_layers": 43, "o_groups": 8, "o_lora_rank": 1024, "q_lora_rank": 1024,
     "qk_rope_head_dim": 64, "routed_scaling_factor": 1.5, "sliding_window": 128, "vocab_size": 129280,
     "compress_ratios": ([0, 0] + [4, 128] * 20 + [4, 0])}, (284.0, 43, 256, 2048, "v3", "sqrtsoftplus", 6, True, 1.5,
     "1/1", "mqa")),
    "glm-5": ({"architectures": ["GlmMoeDsaForCausalLM"], "first_k_dense_replace": 3, "hidden_size": 6144,
     "index_head_dim": 128, "index_n_heads": 32, "index_topk": 2048, "intermediate_size": 12288, "kv_lora_rank": 512,
     "moe_intermediate_size": 2048, "model_type": "glm_moe_dsa", "n_routed_experts": 256, "n_shared_experts": 1,
     "num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 78, "q_lora_rank": 2048,
     "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "routed_scaling_factor": 2.5, "v_head_dim": 256, "vocab_size":
     154880}, (744.0, 75, 256, 2048, "v3", "sigmoid", 8, True, 2.5, "1/1", "mla")),
    "kimi-k2.5": ({"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "text_config":
     {"architectures": ["DeepseekV3ForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 7168, "kv_lora_rank":
     512, "model_type": "kimi_k2", "moe_intermediate_size": 2048, "n_group": 1, "n_routed_experts": 384,
     "n_shared_experts": 1, "num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 61,
     "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "routed_scaling_factor": 2.827,
     "v_head_dim": 128, "vocab_size": 163840}}, (1040.0, 60, 384, 2048, "v3", "sigmoid", 8, True, 2.827, "1/1",
     "mla")),
    "kimi-linear-48b": ({"architectures": ["KimiLinearForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 2304,
     "kv_lora_rank": 512, "linear_attn_config": {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27] * 1, "head_dim": 128,
     "short_conv_kernel_size": 4}, "model_type": "kimi_linear", "moe_intermediate_size": 1024, "num_attention_heads":
     32, "num_experts": 256, "num_experts_per_token": 8, "num_hidden_layers": 27, "num_shared_experts": 1,
     "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "routed_scaling_factor": 2.446, "v_head_dim": 128, "vocab_size":
     163840}, (49.12, 26, 256, 1024, "v3", "sigmoid", 8, True, 2.446, "1/1", "mla")),
    "glm-4.7": ({"architectures": ["Glm4MoeForCausalLM"], "head_dim": 128, "hidden_size": 5120, "intermediate_size":
     12288, "model_type": "glm4_moe", "moe_intermediate_size": 1536, "num_attention_heads": 96, "n_routed_experts":
     160, "n_shared_experts": 1, "routed_scaling_factor": 2.5, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
     "num_hidden_layers": 92, "num_key_value_heads": 8, "vocab_size": 151552}, (355.0, 89, 160, 1536, "v3", "sigmoid",
     8, True, 2.5, "1/1", "gqa")),
    "glm-4.7-flash": ({"architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite",
     "num_hidden_layers": 47, "hidden_size": 2048, "num_attention_heads": 20, "intermediate_size": 10240,
     "vocab_size": 154880, "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4,
     "moe_intermediate_size": 1536, "kv_lora_rank": 512, "q_lora_rank": 768, "qk_nope_head_dim": 192,
     "qk_rope_head_dim": 64, "v_head_dim": 256, "routed_scaling_factor": 1.8}, (30.0, 46, 64, 1536, "v3", "sigmoid",
     4, True, 1.8, "1/1", "mla")),
    "glm-4.5v": ({"architectures": ["Glm4vMoeForConditionalGeneration"], "model_type": "glm4v_moe", "text_config":
     {"first_k_dense_replace": 1, "head_dim": 128, "hidden_size": 4096, "intermediate_size": 10944, "model_type":
     "glm4v_moe_text", "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1,
     "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8,
     "vocab_size": 151552}}, (106.0, 45, 128, 1408, "v3", "sigmoid", 8, True, 1.0, "1/1", "gqa")),
    "gpt-oss-120b": ({"architectures": ["GptOssForCausalLM"], "head_dim": 64, "hidden_size": 2880,
     "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 18, "model_type": "gpt_oss",
     "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 36, "num_key_value_heads": 8,
     "num_local_experts": 128, "sliding_window": 128, "vocab_size": 201088}, (117.0, 36, 128, 0, "v1", "softmax", 4,
     True, 1.0, "1/1", "gqa")),
    "llama-4-scout": ({"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config":
     {"attention_chunk_size": 8192, "hidden_size": 5120, "intermediate_size": 8192, "model_type": "llama4_text",
     "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8,
     "num_local_experts": 16, "vocab_size": 202048}}, (109.0, 48, 16, 8192, "v1", "sigmoid", 1, False, 1.0, "1/1",
     "gqa")),
    "gemma-4-26b-a4b": ({"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config":
     {"attention_k_eq_v": True, "enable_moe_block": True, "global_head_dim": 512, "head_dim": 256, "hidden_size":
     2816, "intermediate_size": 2112, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
     "model_type": "gemma4_text", "moe_intermediate_size": 704, "num_attention_heads": 16, "num_experts": 128,
     "num_global_key_value_heads": 2, "num_hidden_layers": 30, "num_key_value_heads": 8, "sliding_window": 1024,
     "top_k_experts": 8, "vocab_size": 262144}}, (25.2, 30, 128, 2112, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "minimax-m2.5": ({"architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2", "num_hidden_layers": 62,
     "hidden_size": 3072, "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size":
     1536, "vocab_size": 200064, "num_experts_per_tok": 8, "num_local_experts": 256}, (230.0, 62, 256, 0, "v3",
     "sigmoid", 8, True, 1.0, "1/1", "gqa")),
    "minimax-m1": ({"architectures": ["MiniMaxM1ForCausalLM"], "attn_type_list": ([0] * 7 + [1]) * 10, "head_dim":
     128, "hidden_size": 6144, "intermediate_size": 9216, "model_type": "minimax_m1", "num_attention_heads": 64,
     "num_experts_per_tok": 2, "num_hidden_layers": 80, "num_key_value_heads": 8, "num_local_experts": 32,
     "vocab_size": 200064}, (456.0, 80, 32, 0, "v1", "softmax", 2, True, 1.0, "1/1", "gqa")),
    "mimo-v2-flash": ({"architectures": ["MiMoV2FlashForCausalLM"], "model_type": "mimo_v2_flash",
     "num_hidden_layers": 48, "hidden_size": 4096, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim":
     192, "v_head_dim": 128, "vocab_size": 152576, "attention_chunk_size": 128, "swa_num_key_value_heads": 8,
     "hybrid_layer_pattern": ([0, 1, 1, 1, 1, 0] + [1, 1, 1, 1, 1, 0] * 7), "moe_layer_freq": ([0] + [1] * 47),
     "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_experts_per_tok": 8}, (309.0, 47, 256, 0, "v3",
     "sigmoid", 8, True, 1.0, "1/1", "gqa")),
    "step-3.7-flash": ({"architectures": ["Step3p7FlashForCausalLM"], "model_type": "step3p7", "num_hidden_layers":
     45, "hidden_size": 4096, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size":
     128896, "intermediate_size": 11264, "sliding_window": 512, "layer_types": (["full_attention",
     "sliding_attention", "sliding_attention", "sliding_attention"] * 11 + ["full_attention"]),
     "first_k_dense_replace": 3, "num_experts": 288, "num_experts_per_tok": 8, "moe_intermediate_size": 1280,
     "n_shared_experts": 1, "moe_router_scaling_factor": 3.0}, (196.0, 42, 288, 1280, "v3", "sigmoid", 8, True, 3.0,
     "1/1", "gqa")),
    "nemotron-3-nano-30b": ({"architectures": ["NemotronHForCausalLM"], "head_dim": 128, "hidden_size": 2688,
     "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", "mamba_head_dim": 64,
     "mamba_num_heads": 64, "model_type": "nemotron_h", "moe_intermediate_size": 1856,
     "moe_shared_expert_intermediate_size": 3712, "n_groups": 8, "n_routed_experts": 128, "num_attention_heads": 32,
     "num_experts_per_tok": 6, "num_key_value_heads": 2, "routed_scaling_factor": 2.5, "ssm_state_size": 128,
     "vocab_size": 131072}, (31.6, 23, 128, 3712, "v3", "sigmoid", 6, True, 2.5, "1/1", "gqa")),
    "nemotron-3-ultra-550b": ({"architectures": ["NemotronHForCausalLM"], "hidden_size": 8192, "layers_block_type":
     ["mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe",
     "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe",
     "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe",
     "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe",
     "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe",
     "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe",
     "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe",
     "mamba", "attention", "moe", "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "attention", "moe",
     "mamba", "moe", "mamba", "moe", "mamba", "moe", "mamba", "moe"], "mamba_head_dim": 64, "mamba_num_heads": 256,
     "model_type": "nemotron_h", "moe_intermediate_size": 5120, "moe_latent_size": 2048,
     "moe_shared_expert_intermediate_size": 10240, "n_groups": 8, "n_routed_experts": 512, "num_attention_heads": 64,
     "num_experts_per_tok": 22, "num_key_value_heads": 2, "routed_scaling_factor": 5.0, "ssm_state_size": 128,
     "vocab_size": 131072}, (550.0, 48, 512, 10240, "v3", "sigmoid", 22, True, 5.0, "1/1", "gqa")),
    "dbrx": ({"architectures": ["DbrxForCausalLM"], "attn_config": {"kv_n_heads": 8, "model_type": ""}, "d_model":
     6144, "ffn_config": {"ffn_hidden_size": 10752, "model_type": "", "moe_num_experts": 16, "moe_top_k": 4},
     "model_type": "dbrx", "n_heads": 48, "n_layers": 40, "vocab_size": 100352}, (132.0, 40, 16, 0, "v1", "softmax",
     4, True, 1.0, "1/1", "gqa")),
    "hunyuan-a13b": ({"architectures": ["HunYuanMoEV1ForCausalLM"], "hidden_size": 4096, "model_type": "hunyuan",
     "moe_intermediate_size": [3072] * 32, "moe_topk": [8] * 32, "num_attention_heads": 32, "num_experts": 64,
     "num_hidden_layers": 32, "num_key_value_heads": 8, "num_shared_expert": [1] * 32, "tie_word_embeddings": True,
     "vocab_size": 128167}, (80.0, 32, 64, 3072, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "ling-lite": ({"architectures": ["BailingMoeForCausalLM"], "hidden_size": 2048, "model_type": "bailing_moe",
     "moe_intermediate_size": 1408, "num_experts": 64, "num_shared_experts": 2, "num_attention_heads": 16,
     "num_experts_per_tok": 6, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 126464}, (16.8, 28,
     64, 2816, "v1", "softmax", 6, True, 1.0, "1/1", "gqa")),
    "ring-mini-2.0": ({"architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe", "num_hidden_layers":
     20, "hidden_size": 2048, "intermediate_size": 5120, "num_attention_heads": 16, "num_key_value_heads": 4,
     "num_experts": 256, "num_experts_per_tok": 8, "num_shared_experts": 1, "moe_intermediate_size": 512,
     "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4, "vocab_size": 157184},
     (16.26, 19, 256, 512, "v3", "sigmoid", 8, True, 2.5, "8/4", "gqa")),
    "edge0-8b-a1b": ({"architectures": ["BailingMoeV3ForCausalLM"], "first_k_dense_replace": 1, "head_dim": 128,
     "hidden_size": 1536, "kv_lora_rank": 512, "layer_group_size": 4, "moe_intermediate_size": 512, "n_group": 8,
     "num_attention_heads": 16, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 24,
     "num_shared_experts": 1, "q_lora_rank": 256, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
     "routed_scaling_factor": 2.5, "short_conv_kernel_size": 4, "topk_group": 4, "v_head_dim": 128, "vocab_size":
     157184}, (7.68, 23, 128, 512, "v3", "sigmoid", 8, True, 2.5, "8/4", "mla")),
    "olmoe-1b-7b": ({"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
     "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "vocab_size": 50304}, (6.9, 16, 64, 0,
     "v1", "softmax", 8, False, 1.0, "1/1", "mha")),
    "flexolmo-7x7b": ({"model_type": "flex_olmo", "hidden_size": 4096, "intermediate_size": 11008,
     "num_hidden_layers": 32, "num_attention_heads": 32, "num_experts": 7, "num_experts_per_tok": 5, "vocab_size":
     100352}, (33.0, 32, 7, 0, "v1", "softmax", 5, False, 1.0, "1/1", "mha")),
    "granite-3.1-3b-a800m": ({"architectures": ["GraniteMoeForCausalLM"], "hidden_size": 1536, "intermediate_size":
     512, "model_type": "granitemoe", "num_attention_heads": 24, "num_experts_per_tok": 8, "num_hidden_layers": 32,
     "num_key_value_heads": 8, "num_local_experts": 40, "tie_word_embeddings": True, "vocab_size": 49155}, (3.3, 32,
     40, 0, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "granite-4.0-h-tiny": ({"model_type": "granitemoehybrid", "hidden_size": 1536, "num_hidden_layers": 40,
     "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 512, "shared_intermediate_size": 1024,
     "num_local_experts": 64, "num_experts_per_tok": 6, "vocab_size": 100352, "tie_word_embeddings": True,
     "mamba_d_state": 128, "mamba_n_heads": 48, "mamba_d_head": 64, "layer_types": (["mamba"] * 5 + ["attention",
     "mamba", "mamba", "mamba", "mamba"]) * 4}, (7.0, 40, 64, 1024, "v1", "softmax", 6, True, 1.0, "1/1", "gqa")),
    "jamba-v0.1": ({"architectures": ["JambaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
     "mamba_d_state": 16, "model_type": "jamba", "num_attention_heads": 32, "num_experts": 16, "num_experts_per_tok":
     2, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 65536}, (52.0, 16, 16, 0, "v1", "softmax", 2,
     False, 1.0, "1/1", "gqa")),
    "phi-3.5-moe": ({"architectures": ["PhiMoEForCausalLM"], "hidden_size": 4096, "intermediate_size": 6400,
     "max_position_embeddings": 131072, "model_type": "phimoe", "num_attention_heads": 32, "num_experts_per_tok": 2,
     "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 16, "vocab_size": 32064}, (41.9, 32, 16,
     0, "v1", "softmax", 2, False, 1.0, "1/1", "gqa")),
    "ernie-4.5-21b-a3b": ({"architectures": ["Ernie4_5_MoeForCausalLM"], "model_type": "ernie4_5_moe", "hidden_size":
     2560, "moe_intermediate_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads":
     4, "moe_num_experts": 64, "moe_num_shared_experts": 2, "moe_k": 6, "moe_layer_start_index": 1, "vocab_size":
     103424}, (21.8, 27, 64, 3072, "v3", "softmax", 6, True, 1.0, "1/1", "gqa")),
    "dots.llm1": ({"architectures": ["Dots1ForCausalLM"], "model_type": "dots1", "hidden_size": 4096,
     "num_hidden_layers": 62, "intermediate_size": 10944, "num_attention_heads": 32, "vocab_size": 152064,
     "first_k_dense_replace": 1, "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 2,
     "num_experts_per_tok": 6, "routed_scaling_factor": 2.5}, (142.0, 61, 128, 2816, "v3", "sigmoid", 6, True, 2.5,
     "1/1", "mha")),
    "longcat-flash-lite": ({"architectures": ["LongcatFlashNgramForCausalLM"], "model_type": "longcat_flash_ngram",
     "vocab_size": 131072, "hidden_size": 3072, "ffn_hidden_size": 6144, "expert_ffn_hidden_size": 1024, "num_layers":
     14, "num_attention_heads": 32, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
     "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 256, "moe_topk": 12, "routed_scaling_factor":
     6.0, "zero_expert_num": 128, "ngram_vocab_size_ratio": 78, "emb_neighbor_num": 4, "emb_split_num": 4}, (68.5, 14,
     256, 0, "v3", "softmax", 12, False, 6.0, "1/1", "mla")),
    "lfm2-8b-a1b": ({"model_type": "lfm2_moe", "architectures": ["Lfm2MoeForCausalLM"], "vocab_size": 65536,
     "hidden_size": 2048, "moe_intermediate_size": 1792, "num_hidden_layers": 24, "num_attention_heads": 32,
     "num_key_value_heads": 8, "num_dense_layers": 2, "num_experts": 32, "num_experts_per_tok": 4, "layer_types":
     (["conv", "conv", "full_attention", "conv"] * 5 + ["conv", "full_attention", "conv", "conv"])}, (8.3, 22, 32, 0,
     "v3", "sigmoid", 4, True, 1.0, "1/1", "gqa")),
    "k-exaone-236b": ({"architectures": ["ExaoneMoEForCausalLM"], "head_dim": 128, "hidden_size": 6144,
     "is_moe_layer": ([False] + [True] * 47), "model_type": "exaone_moe", "moe_intermediate_size": 2048,
     "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
     "num_key_value_heads": 8, "num_shared_experts": 1, "routed_scaling_factor": 2.5, "sliding_window": 128,
     "sliding_window_pattern": "LLLG", "vocab_size": 153600}, (236.0, 47, 128, 2048, "v3", "sigmoid", 8, True, 2.5,
     "1/1", "gqa")),
    "grok-1": ({"architectures": ["Grok1ModelForCausalLM"], "vocab_size": 131072, "hidden_size": 6144,
     "intermediate_size": 32768, "num_hidden_layers": 64, "num_attention_heads": 48, "num_key_value_heads": 8,
     "tie_word_embeddings": True, "num_experts_per_tok": 2, "num_experts": 8}, (314.0, 64, 8, 0, "v1", "softmax", 2,
     False, 1.0, "1/1", "gqa")),
    "hy3": ({"architectures": ["HYV3ForCausalLM"], "model_type": "hy_v3", "num_hidden_layers": 80, "hidden_size":
     4096, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 120832,
     "intermediate_size": 13312, "first_k_dense_replace": 1, "num_experts": 192, "num_experts_per_tok": 8,
     "num_shared_experts": 1, "moe_intermediate_size": 1536, "router_scaling_factor": 2.826}, (295.0, 79, 192, 1536,
     "v3", "sigmoid", 8, True, 2.826, "1/1", "gqa")),
    "trinity-nano": ({"architectures": ["AfmoeForCausalLM"], "hidden_size": 1024, "intermediate_size": 3072,
     "model_type": "afmoe", "moe_intermediate_size": 256, "num_attention_heads": 8, "num_dense_layers": 2,
     "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 56, "num_key_value_heads": 2,
     "num_shared_experts": 1, "route_scale": 2.826, "sliding_window": 2048, "vocab_size": 200192}, (6.06, 54, 128,
     256, "v3", "sigmoid", 8, True, 2.826, "1/1", "gqa")),
    "solar-open-100b": ({"architectures": ["SolarOpenForCausalLM"], "model_type": "solar_open", "vocab_size": 196608,
     "hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim":
     128, "moe_intermediate_size": 1280, "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8},
     (102.0, 48, 128, 1280, "v3", "sigmoid", 8, True, 1.0, "1/1", "gqa")),
    "switch-base-8": ({"architectures": ["SwitchTransformersForConditionalGeneration"], "model_type":
     "switch_transformers", "vocab_size": 32128, "d_model": 768, "d_ff": 3072, "num_layers": 12,
     "num_sparse_encoder_layers": 6, "num_decoder_layers": 12, "num_sparse_decoder_layers": 6, "num_heads": 12,
     "num_experts": 8}, (0.62, 12, 8, 0, "v1", "softmax", 1, False, 1.0, "1/1", "mha")),
    "nllb-moe-54b": ({"architectures": ["NllbMoeModel"], "model_type": "nllb-moe", "vocab_size": 256206, "d_model":
     2048, "encoder_layers": 24, "encoder_ffn_dim": 8192, "encoder_attention_heads": 16, "decoder_layers": 24,
     "num_experts": 128, "encoder_sparse_step": 4, "decoder_sparse_step": 4}, (54.5, 12, 128, 0, "v1", "softmax", 2,
     True, 1.0, "1/1", "mha")),
    "deepseek-v4-pro": ({"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "compress_ratios":
     ([128] + [128, 4] * 30 + [0]), "head_dim": 512, "hidden_size": 7168, "index_head_dim": 128, "index_n_heads": 64,
     "index_topk": 1024, "moe_intermediate_size": 3072, "n_routed_experts": 384, "n_shared_experts": 1,
     "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 61, "o_groups": 16, "o_lora_rank":
     1024, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "routed_scaling_factor": 2.5, "sliding_window": 128,
     "vocab_size": 129280}, (1600.0, 61, 384, 3072, "v3", "sqrtsoftplus", 6, True, 2.5, "1/1", "mqa")),
    "laguna-s": ({"architectures": ["LagunaForCausalLM"], "model_type": "laguna", "vocab_size": 100352, "hidden_size":
     3072, "intermediate_size": 12288, "num_hidden_layers": 48, "num_attention_heads": 48, "num_key_value_heads": 8,
     "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 10, "moe_intermediate_size": 1024,
     "shared_expert_intermediate_size": 1024, "sliding_window": 512, "layer_types": (["full_attention"] +
     ["sliding_attention"] * 3) * 12, "mlp_layer_types": (["dense"] + ["sparse"] * 47), "moe_routed_scaling_factor":
     2.5, "num_attention_heads_per_layer": ([48] + [72] * 3) * 12}, (118.0, 47, 256, 1024, "v3", "sigmoid", 10, True,
     2.5, "1/1", "gqa")),
    "llama-4-maverick": ({"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config":
     {"attention_chunk_size": 8192, "hidden_size": 5120, "interleave_moe_layer_step": 2, "intermediate_size": 8192,
     "intermediate_size_mlp": 16384, "model_type": "llama4_text", "num_attention_heads": 40, "num_experts_per_tok": 1,
     "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 128, "vocab_size": 202048}}, (400.0, 24,
     128, 8192, "v1", "sigmoid", 1, False, 1.0, "1/1", "gqa")),
    "qwen3-omni": ({"architectures": ["Qwen3OmniMoeForConditionalGeneration"], "model_type": "qwen3_omni_moe",
     "thinker_config": {"model_type": "qwen3_omni_moe_thinker", "text_config": {"head_dim": 128, "hidden_size": 2048,
     "model_type": "qwen3_omni_moe_text", "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads":
     32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
     "vocab_size": 152064}}}, (30.5, 48, 128, 0, "v1", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "hunyuan-large": ({"architectures": ["HunYuanForCausalLM"], "model_type": "hunyuan", "hidden_size": 6400,
     "intermediate_size": 18304, "num_hidden_layers": 64, "num_attention_heads": 80, "num_key_value_heads": 8,
     "attention_head_dim": 128, "num_experts": 16, "moe_topk": 1, "num_shared_expert": 1, "tie_word_embeddings": True,
     "vocab_size": 128512}, (389.0, 64, 16, 18304, "v1", "softmax", 1, True, 1.0, "1/1", "gqa")),
    "ling-1t": ({"architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe", "hidden_size": 8192,
     "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "num_experts": 256,
     "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "moe_shared_expert_intermediate_size": 2048,
     "first_k_dense_replace": 4, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5, "vocab_size": 157184},
     (1000.0, 76, 256, 2048, "v3", "sigmoid", 8, True, 2.5, "8/4", "gqa")),
    "ring-linear-mini": ({"architectures": ["BailingMoeLinearV2ForCausalLM"], "model_type": "bailing_moe_linear",
     "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20, "num_attention_heads": 16,
     "num_key_value_heads": 4, "num_experts": 256, "num_experts_per_tok": 8, "num_shared_experts": 1,
     "moe_intermediate_size": 512, "first_k_dense_replace": 1, "n_group": 8, "topk_group": 4, "routed_scaling_factor":
     2.5, "layer_group_size": 5, "vocab_size": 157184}, (16.4, 19, 256, 512, "v3", "sigmoid", 8, True, 2.5, "8/4",
     "gqa")),
    "longcat-flash": ({"architectures": ["LongcatFlashForCausalLM"], "model_type": "longcat_flash", "vocab_size":
     131072, "hidden_size": 6144, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "num_layers": 28,
     "num_attention_heads": 64, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim":
     128, "v_head_dim": 128, "n_routed_experts": 512, "moe_topk": 12, "routed_scaling_factor": 6.0, "zero_expert_num":
     256}, (560.0, 28, 512, 0, "v3", "softmax", 12, False, 6.0, "1/1", "mla")),
    "step-3": ({"architectures": ["Step3VLForConditionalGeneration"], "model_type": "step3_vl", "text_config":
     {"architectures": ["Step3TextForCausalLM"], "model_type": "step3_text", "hidden_size": 7168, "intermediate_size":
     18432, "num_attention_heads": 64, "num_attention_groups": 1, "num_hidden_layers": 61, "head_dim": 256,
     "share_q_dim": 2048, "moe_num_experts": 48, "moe_top_k": 3, "moe_intermediate_size": 5120, "share_expert_dim":
     5120, "moe_layers_enum":
     "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59",
     "vocab_size": 128815}}, (316.0, 56, 48, 5120, "v1", "softmax", 3, True, 1.0, "1/1", "mqa")),
    "mistral-large-3-params": ({"dim": 7168, "n_layers": 61, "hidden_dim": 16384, "n_heads": 128, "vocab_size":
     131072, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "kv_lora_rank": 512, "v_head_dim":
     128, "moe": {"first_k_dense_replace": 3, "num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 4096,
     "num_shared_experts": 1}}, (673.0, 58, 128, 4096, "v1", "softmax", 4, True, 1.0, "1/1", "mla")),
    "jetmoe-8b": ({"architectures": ["JetMoEForCausalLM"], "model_type": "jetmoe", "hidden_size": 2048,
     "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 16,
     "kv_channels": 128, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000,
     "tie_word_embeddings": True}, (8.5, 24, 8, 0, "v1", "softmax", 2, True, 1.0, "1/1", "mha")),
    "grok-2": ({"architectures": ["Grok1ForCausalLM"], "model_type": "git", "hidden_size": 8192, "intermediate_size":
     32768, "moe_intermediate_size": 16384, "num_attention_heads": 64, "num_experts_per_tok": 2, "num_hidden_layers":
     64, "num_key_value_heads": 8, "num_local_experts": 8, "residual_moe": True, "sliding_window_size": -1,
     "global_attn_every_n": 1, "vocab_size": 131072}, (270.0, 64, 8,
     32768, "v1", "softmax", 2, False, 1.0, "1/1", "gqa")),
    "ernie-300b": ({"architectures": ["Ernie4_5_MoeForCausalLM"], "model_type": "ernie4_5_moe", "hidden_size": 8192,
     "moe_intermediate_size": 3584, "num_hidden_layers": 54, "num_attention_heads": 64, "num_key_value_heads": 8,
     "moe_num_experts": 64, "moe_k": 8, "moe_layer_start_index": 3, "vocab_size": 103424, "tie_word_embeddings":
     False}, (300.0, 51, 64, 0, "v3", "softmax", 8, True, 1.0, "1/1", "gqa")),
    "ernie-vl-28b": ({"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"], "model_type": "ernie4_5_moe_vl",
     "hidden_size": 2560, "moe_intermediate_size": [1536, 512], "num_hidden_layers": 28, "num_attention_heads": 20,
     "num_key_value_heads": 4, "moe_num_experts": [64, 64], "moe_num_shared_experts": 2, "moe_k": 6,
     "moe_layer_start_index": [1, 1], "vocab_size": 103424, "vision_config": {"model_type":
     "DFNRope_vision_transformer"}}, (28.6, 27, 64, 3072, "v3", "softmax", 6, True, 1.0, "1/1", "gqa")),
    "jamba-large": ({"architectures": ["JambaForCausalLM"], "model_type": "jamba", "hidden_size": 8192,
     "intermediate_size": 24576, "mamba_d_state": 16, "num_attention_heads": 64, "num_experts": 16,
     "num_experts_per_tok": 2, "num_hidden_layers": 72, "num_key_value_heads": 8, "vocab_size": 65536}, (398.0, 36,
     16, 0, "v1", "softmax", 2, False, 1.0, "1/1", "gqa")),
    "smallthinker-21b": ({"architectures": ["SmallThinkerForCausalLM"], "model_type": "smallthinker", "head_dim": 128,
     "hidden_size": 2560, "moe_ffn_hidden_size": 768, "moe_num_active_primary_experts": 6, "moe_num_primary_experts":
     64, "num_attention_heads": 28, "num_hidden_layers": 52, "num_key_value_heads": 4, "sliding_window_size": 4096,
     "sliding_window_layout": ([0] + [1] * 3) * 13, "vocab_size": 151936}, (21.5, 52, 64, 0, "v1", "sigmoid", 6, True,
     1.0, "1/1", "gqa")),
    "llada-moe": ({"architectures": ["LLaDAMoEModelLM"], "model_type": "llada", "hidden_size": 2048,
     "expert_intermediate_size": 1024, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
     "num_hidden_layers": 16, "vocab_size": 157184}, (7.36, 16, 64, 0, "v1", "softmax", 8, False, 1.0, "1/1", "mha")),
    "aria": ({"architectures": ["AriaForConditionalGeneration"], "model_type": "aria", "text_config": {"hidden_size":
     2560, "intermediate_size": 1664, "model_type": "aria_text", "moe_num_experts": 64, "moe_num_shared_experts": 2,
     "moe_topk": 6, "num_attention_heads": 20, "num_hidden_layers": 28, "vocab_size": 100352}}, (24.9, 28, 64, 3328,
     "v1", "softmax", 6, True, 1.0, "1/1", "mha")),
    "nomic": ({"architectures": ["NomicBertModel"], "model_type": "nomic_bert", "n_embd": 768, "n_head": 12,
     "n_inner": 3072, "n_layer": 12, "num_experts": 8, "moe_top_k": 2, "moe_every_n_layers": 2, "vocab_size": 250048},
     (0.47, 6, 8, 0, "v1", "softmax", 2, False, 1.0, "1/1", "mha")),
    "mixtral-params": ({"dim": 4096, "n_layers": 32, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
     "vocab_size": 32000, "moe": {"num_experts_per_tok": 2, "num_experts": 8}}, (46.7, 32, 8, 0, "v1", "softmax", 2,
     True, 1.0, "1/1", "gqa")),
    "deepseek-v3-inference": ({"vocab_size": 129280, "dim": 7168, "moe_inter_dim": 2048, "n_layers": 61,
     "n_dense_layers": 3, "n_heads": 128, "n_routed_experts": 256, "n_shared_experts": 1, "n_activated_experts": 8,
     "n_expert_groups": 8, "n_limited_groups": 4, "route_scale": 2.5, "score_func": "sigmoid", "q_lora_rank": 1536,
     "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}, (671.0, 58, 256, 2048,
     "v3", "sigmoid", 8, True, 2.5, "8/4", "mla")),
    "minimax-m3": ({"architectures": ["MiniMaxM3SparseForConditionalGeneration"], "model_type": "minimax_m3_vl",
     "text_config": {"model_type": "minimax_m3", "hidden_size": 6144, "intermediate_size": 3072,
     "dense_intermediate_size": 12288, "num_hidden_layers": 60, "num_attention_heads": 64, "num_key_value_heads": 4,
     "head_dim": 128, "num_local_experts": 128, "num_experts_per_tok": 4, "n_shared_experts": 1, "moe_layer_freq":
     ([0, 0, 0] + [1] * 57), "routed_scaling_factor": 2.0, "vocab_size": 200064}}, (428.0, 57, 128, 3072, "v3",
     "sigmoid", 4, True, 2.0, "1/1", "gqa")),
    "qwen3.5-397b": ({"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe",
     "text_config": {"model_type": "qwen3_5_moe_text", "hidden_size": 4096, "num_hidden_layers": 60,
     "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 256, "linear_key_head_dim": 128,
     "linear_num_key_heads": 16, "linear_num_value_heads": 64, "linear_value_head_dim": 128, "moe_intermediate_size":
     1024, "shared_expert_intermediate_size": 1024, "num_experts": 512, "num_experts_per_tok": 10, "vocab_size":
     248320}}, (397.0, 60, 512, 1024, "v1", "softmax", 10, True, 1.0, "1/1", "gqa")),
    "arctic": ({"architectures": ["ArcticForCausalLM"], "model_type": "arctic", "hidden_size": 7168,
     "intermediate_size": 4864, "num_hidden_layers": 35, "num_attention_heads": 56, "num_key_value_heads": 8,
     "num_local_experts": 128, "num_experts_per_tok": 2, "use_residual": True, "vocab_size": 32000}, (480.0, 35, 128,
     7168, "v1", "softmax", 2, True, 1.0, "1/1", "gqa")),
    "granite-h-small": ({"architectures": ["GraniteMoeHybridForCausalLM"], "model_type": "granitemoehybrid",
     "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8,
     "intermediate_size": 768, "shared_intermediate_size": 1536, "num_local_experts": 72, "num_experts_per_tok": 10,
     "vocab_size": 100352, "tie_word_embeddings": True, "mamba_d_state": 128, "mamba_n_heads": 128, "mamba_d_head":
     64, "layer_types": (["mamba"] * 5 + ["attention", "mamba", "mamba", "mamba", "mamba"]) * 4}, (32.0, 40, 72, 1536,
     "v1", "softmax", 10, True, 1.0, "1/1", "gqa")),
    "kimi-vl": ({"architectures": ["KimiVLForConditionalGeneration"], "model_type": "kimi_vl", "text_config":
     {"model_type": "deepseek_v3", "vocab_size": 163840, "hidden_size": 2048, "moe_intermediate_size": 1408,
     "num_hidden_layers": 27, "num_attention_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
     "routed_scaling_factor": 2.446, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "v_head_dim": 128,
     "qk_nope_head_dim": 128, "n_group": 1, "num_experts_per_tok": 6, "first_k_dense_replace": 1}}, (16.0, 26, 64,
     2816, "v3", "sigmoid", 6, True, 2.446, "1/1", "mla")),
    "openpangu-ultra": ({"architectures": ["PanguUltraMoEForCausalLM"], "model_type": "pangu_ultra_moe",
     "attention_kv_lora_dim": 512, "attention_q_lora_dim": 1536, "attention_qk_dim": 128, "attention_qk_rope_dim": 64,
     "attention_v_dim": 128, "hidden_size": 7680, "moe_intermediate_size": 2048, "num_attention_heads": 128,
     "num_dense_layers": 3, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_routed_experts": 256,
     "num_shared_experts": 1, "routed_scaling_factor": 2.5, "vocab_size": 153600}, (718.0, 58, 256, 2048, "v1",
     "sigmoid", 8, True, 2.5, "1/1", "mla")),
}
